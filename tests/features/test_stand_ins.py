import pytest
import torch
import torch.nn.functional as F
from random_weights import make_discriminator, pictures

from styleforge.features import load_extractor
from styleforge.features.stand_ins import RandomVGG
from styleforge.images import from_uint8, to_uint8


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("random-vgg")


def test_the_random_vgg_is_the_same_everywhere(extractor):
    assert extractor.checksum == "5322729b0157b62177e699fc23c2034ad3a2f59e1176af28f36a8dc1e2f4cd2b"
    features, logits = extractor(pictures(1, height=64, width=64))
    expected = torch.tensor([0.180913, 0.091945, 0.154475, 0.007143, 0.150424])
    torch.testing.assert_close(features[0, ::96], expected, atol=1e-5, rtol=1e-4)
    assert features.shape == (1, extractor.num_features) and logits.shape == (1, 1000)


def test_making_it_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    RandomVGG()
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_is_another_network():
    assert not torch.equal(RandomVGG(1).head.weight, RandomVGG(0).head.weight)


def test_a_pictures_features_do_not_depend_on_the_batch(extractor):
    together = extractor(pictures(5))
    alone = [extractor(x[None]) for x in pictures(5)]
    torch.testing.assert_close(torch.cat([one.features for one in alone]), together.features, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(torch.cat([one.logits for one in alone]), together.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (7, 33), (200, 100), (300, 300)])
def test_pictures_of_any_size_have_features(extractor, size):
    features, logits = extractor(pictures(2, height=size[0], width=size[1]))
    assert features.isfinite().all() and logits.isfinite().all()


def test_large_pictures_are_averaged_down(extractor):
    small = pictures(2, height=128, width=64)
    large = small.repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(extractor(large).features, extractor(small).features, atol=1e-5, rtol=1e-5)


def frechet(a, b):
    """Between Gaussians with diagonal covariances; enough to tell how far apart features are."""
    return ((a.mean(0) - b.mean(0)).square() + (a.std(0) - b.std(0)).square()).sum().item()


def test_features_tell_more_damage_from_less(extractor):
    img = from_uint8(pictures(24, height=64, width=64))
    features = extractor(to_uint8(img)).features
    noise = torch.randn_like(img)
    for damaged in (
        [img + strength * noise for strength in (0.1, 0.2, 0.4)],
        [F.interpolate(F.avg_pool2d(img + 0.1 * noise, k), size=64) for k in (2, 4, 8)],
        [img * contrast for contrast in (0.9, 0.7, 0.4)],
    ):
        far = [frechet(features, extractor(to_uint8(x)).features) for x in damaged]
        assert 0 < far[0] < far[1] < far[2]


@pytest.mark.parametrize("values", [{}, {"architecture": "skip", "img_channels": 6}, {"resolution": (12, 16)}])
def test_a_discriminators_features_are_those_of_its_last_layer(values):
    D = make_discriminator(**values, mbstd_group=1)
    extractor = load_extractor("discriminator", D=D)
    x = pictures(3, D.img_channels, *D.config.size)
    features, logits = extractor(x)
    assert features.shape == (3, extractor.num_features) and logits is None
    out = D.blocks[-1].out
    torch.testing.assert_close(out(features), D(from_uint8(x)))


def test_a_discriminators_features_do_not_depend_on_the_batch():
    D = make_discriminator(mbstd_group=4)
    extractor = load_extractor("discriminator", D=D)
    x = pictures(4, 3, 16, 16)
    torch.testing.assert_close(extractor(x[2:3]).features, extractor(x).features[2:3], atol=1e-5, rtol=1e-5)


def test_the_discriminator_is_a_copy_in_full_precision():
    D = make_discriminator(c_dim=3).train()
    D.compute_dtype = torch.bfloat16
    extractor = load_extractor("discriminator", D=D)
    x = pictures(2, 3, 16, 16)
    before, checksum = extractor(x).features, extractor.checksum
    for parameter in D.parameters():
        parameter.data += 1
    assert torch.equal(extractor(x).features, before)
    assert load_extractor("discriminator", D=D).checksum != checksum
    assert D.training and D.compute_dtype == torch.bfloat16
    assert all(parameter.requires_grad for parameter in D.parameters())


def test_pictures_of_another_size_than_the_discriminators_are_refused(refuses):
    with refuses("[2, 3, 8, 8]", "16, 16]"):
        load_extractor("discriminator", D=make_discriminator())(pictures(2, 3, 8, 8))
