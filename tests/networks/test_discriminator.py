import itertools

import pytest
import torch
import torch.nn.functional as F

from styleforge.networks import Discriminator, DiscriminatorConfig, fade_images, network_preset, preset_names
from styleforge.networks.layers import Conv2d
from styleforge.ops import box_downsample2d

TINY = {"resolution": 32, "channel_base": 256, "channel_max": 12, "mapping_layers": 2}
ARCHITECTURES = ["orig", "skip", "resnet"]


def make(**values):
    D = Discriminator(DiscriminatorConfig(**TINY | values))
    for name, parameter in D.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return D


def discriminator_loss(D, c, lod):
    """Logistic loss and R1 (Appendix B)."""
    fake, real = torch.randn(2, 4, D.config.img_channels, *D.config.size)
    real = fade_images(real, lod).requires_grad_()
    logits = D(real, c, lod=lod)
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    penalty = gradient.square().sum([1, 2, 3])
    assert (penalty > 0).all()
    return F.softplus(D(fade_images(fake, lod), c, lod=lod)).mean() + F.softplus(-logits).mean() + 5 * penalty.mean()


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("name", preset_names())
def test_every_parameter_of_every_preset_learns(name, c_dim, tiny):
    D = Discriminator(tiny(network_preset(name, 16, c_dim=c_dim)[1]))
    c = torch.eye(3)[[0, 1, 2, 0]] if c_dim else None
    for lod in [0.0, 0.5, 1.5] if D.config.progressive else [0.0]:
        loss = discriminator_loss(D, c, lod)
        assert loss.isfinite()
        loss.backward()
    for parameter_name, parameter in D.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} got no gradient"
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize(
    ("architecture", "convention", "blur"),
    list(itertools.product(ARCHITECTURES, ["stylegan", "stylegan2"], [True, False])),
)
def test_every_architecture_goes_with_every_convention(architecture, convention, blur):
    D = make(architecture=architecture, convention=convention, blur=blur)
    logits = D(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 1) and logits.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_statistics_of_the_batch_count_unless_switched_off(architecture):
    img = torch.randn(4, 3, 32, 32)
    twins = img[:1].expand(4, -1, -1, -1)
    for channels in (0, 1, 2):
        D = make(architecture=architecture, mbstd_channels=channels)
        in_company, among_twins = D(img)[0], D(twins)[0]
        assert torch.allclose(in_company, among_twins, atol=1e-5) == (channels == 0)
    assert make(mbstd_group=1)(img).shape == (4, 1)


def test_a_group_sees_every_other_sample_not_its_neighbours():
    D = make(mbstd_group=2)
    img = torch.randn(4, 3, 32, 32)
    other = img.clone()
    other[1] += 1  # of the group {1, 3}
    unchanged = (D(img) - D(other)).abs().squeeze() < 1e-6
    assert unchanged.tolist() == [True, False, True, False]


@pytest.mark.parametrize("num", [1, 2, 4, 6])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_batches_in_one_pass_keep_their_own_statistics(num, c_dim):
    D = make(c_dim=c_dim)
    img = torch.randn(2, num, 3, 32, 32)
    c = torch.eye(3)[torch.arange(2 * num) % 3].reshape(2, num, 3) if c_dim else [None, None]
    apart = torch.cat([D(*batch) for batch in zip(img, c, strict=True)])
    together = D(img.flatten(0, 1), c.flatten(0, 1) if c_dim else None, num_batches=2)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
    assert num == 1 or not torch.allclose(together, D(img.flatten(0, 1), c.flatten(0, 1) if c_dim else None))


@pytest.mark.parametrize("num", [1, 2, 3, 5, 6, 7])
def test_any_batch_size_will_do(num):
    assert make()(torch.randn(num, 3, 32, 32)).shape == (num, 1)


def test_a_matrix_of_labels_has_one_logit_per_class():
    D = make(c_dim=3, label_mode="matrix")
    img = torch.randn(4, 3, 32, 32)
    per_class = torch.cat([D(img, torch.eye(3)[[i] * 4]) for i in range(3)], 1)
    mixed = D(img, torch.tensor([[0.2, 0.3, 0.5]]).expand(4, -1))
    torch.testing.assert_close(mixed[:, 0], per_class @ torch.tensor([0.2, 0.3, 0.5]))
    assert torch.pdist(per_class.t()).min() > 1e-3


def test_embedded_labels_project_the_features():
    D = make(c_dim=3, mapping_features=7)
    features = []
    D.b4.out.register_forward_hook(lambda _, __, y: features.append(y))
    c = torch.eye(3)[[0, 1, 2, 0]]
    logits = D(torch.randn(4, 3, 32, 32), c)
    embedding = D.b4.mapping(c)
    assert features[0].shape == embedding.shape == (4, 7)
    torch.testing.assert_close(logits, (features[0] * embedding).sum(1, keepdim=True) / 7**0.5)


@pytest.mark.parametrize("convention", ["stylegan", "stylegan2"])
def test_lod_looks_at_the_image_of_that_detail_alone(convention):
    D = make(architecture="orig", progressive=True, convention=convention).double()
    img = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for lod in (0, 0.5, 1, 1.25, 2, 3):
        logits = D(img, lod=lod)
        floor = fade_images(img, int(lod))
        torch.testing.assert_close(D(floor, lod=lod), logits)
    for whole in (1, 2, 3):
        torch.testing.assert_close(D(img, lod=whole - 1e-9), D(img, lod=whole), rtol=0, atol=1e-6)


def test_at_a_whole_lod_it_is_the_smaller_network():
    D = make(architecture="orig", progressive=True)
    img = torch.randn(4, 3, 32, 32)
    for lod in (1, 2):
        smaller = make(architecture="orig", progressive=True, resolution=32 >> lod)
        smaller.load_state_dict({k: v for k, v in D.state_dict().items() if k in smaller.state_dict()})
        torch.testing.assert_close(D(img, lod=lod), smaller(box_downsample2d(img, 2**lod)))


def test_blocks_above_the_lod_take_no_part():
    D = make(architecture="orig", progressive=True)
    D(torch.randn(4, 3, 32, 32), lod=1.5).sum().backward()
    assert {name.split(".")[0] for name, p in D.named_parameters() if p.grad is not None} == {"b16", "b8", "b4"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_images_of_any_dtype_go_through_float32_weights(architecture, dtype):
    D, img = make(architecture=architecture, c_dim=2), torch.randn(4, 3, 32, 32)
    c = torch.eye(2)[[0, 1, 1, 0]]
    logits = D(img.to(dtype), c)
    assert logits.dtype == dtype
    assert (logits.float() - D(img, c)).abs().max() < 0.1


def test_a_mixed_precision_network_returns_logits_in_the_dtype_of_the_images():
    D, img = make(architecture="skip"), torch.randn(4, 3, 32, 32)
    full = D(img)
    D.compute_dtype = torch.bfloat16
    mixed = D(img)
    assert mixed.dtype == torch.float32 and not torch.equal(mixed, full)
    assert (mixed - full).abs().max() < 0.1


@pytest.mark.parametrize("values", [{}, {"architecture": "skip"}, {"resolution": 4}])
def test_feature_maps_are_what_enters_the_blocks(values):
    D = make(**values)
    img = torch.randn(2, 3, *D.config.size)
    maps = list(D.feature_maps(img))
    assert [tuple(x.shape[2:]) for x in maps] == [block.size for block in D.blocks]
    assert torch.equal(D.blocks[-1](maps[-1], None), D(img))


@pytest.mark.parametrize("channels", [0, 2])
def test_features_are_what_the_last_layer_sees_of_each_image_alone(channels):
    D = make(mbstd_channels=channels)
    img = torch.randn(3, 3, 32, 32)
    features = D.features(img)
    assert features.shape == (3, D.num_features)
    for i in range(3):
        torch.testing.assert_close(D.blocks[-1].out(features[i : i + 1]), D(img[i : i + 1]), atol=1e-5, rtol=1e-5)


def test_bad_inputs_are_refused(refuses):
    D, conditional = make(), make(c_dim=3)
    img = torch.zeros(2, 3, 32, 32)
    with refuses("img", "[2, 3, 64, 64]", "3, 32, 32]", "resize"):
        D(torch.zeros(2, 3, 64, 64))
    with refuses("img", "[2, 1, 32, 32]"):
        D(img[:, :1])
    with refuses("img", "[3, 32, 32]"):
        D(img[0])
    with refuses("[2, 3]", "unconditional"):
        D(img, torch.zeros(2, 3))
    with refuses("no labels", "conditional"):
        conditional(img)
    with refuses("[2, 4]", "[2, 3]"):
        conditional(img, torch.zeros(2, 4))
    with refuses("[2, 3, 64, 64]"):
        D.features(torch.zeros(2, 3, 64, 64))
    with refuses("num_batches", "got 3 for 2 images", "divisor"):
        D(img, num_batches=3)
    with refuses("lod", "0.5", "progressive=True"):
        D(img, lod=0.5)
    with refuses("lod", "4", "0 to 3"):
        make(architecture="orig", progressive=True)(img, lod=4)


def test_the_rgb_layer_at_the_base_grid_of_input_skips_is_the_one_without_a_clamp():
    """As in the PyTorch release: all convolutions and RGB layers above it have the clamp."""
    D = make(resolution=16, architecture="skip", conv_clamp=256)
    clamps = {name: layer.clamp for name, layer in D.named_modules() if isinstance(layer, Conv2d)}
    assert {name for name, clamp in clamps.items() if clamp is None} == {"b4.fromrgb"}
    D.b4.fromrgb.bias.data.fill_(1000.0)
    assert D.b4.fromrgb(torch.zeros(1, 3, 4, 4)).min() > 1000
