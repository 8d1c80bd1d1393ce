import io
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from styleforge.networks import Discriminator, Generator, GeneratorConfig, network_preset, preset_names

TINY = {"resolution": 16, "channel_base": 128, "channel_max": 12, "z_dim": 8, "w_dim": 8, "mapping_layers": 2}

# The rows of Tan et al., Table 1, and of the style blocks: one config value each.
ABLATIONS = [
    {},
    {"mapping_layers": 0},
    {"input": "latent"},
    {"use_noise": False},
    {"blur": False},
    {"use_styles": False},
    {"style_block": "none"},
]
ROWS = [(preset, changes) for preset in ("config-a", "config-e") for changes in ABLATIONS]
ROWS += [("config-a", {"style_block": block}) for block in ("pixel", "pixel_instance", "demodulation")]


def wake(network):
    """Makes what starts at zero or at a kink random, so that nothing hides."""
    for name, parameter in network.named_parameters():
        if name.endswith(("strength", "bias", "const")):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return network


def assert_every_parameter_learns(network):
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} got no gradient"
        assert parameter.grad.isfinite().all(), f"{name} got a gradient that is not finite"
        assert parameter.grad.abs().max() > 0, f"{name} got a gradient of zeros"


def generator_loss(G, D, c, lod=0.0):
    """Non-saturating loss and path length regularisation (Appendix B)."""
    ws = G.mapping(torch.randn(4, G.z_dim), c)
    if not ws.requires_grad:  # without mapping layers and labels
        ws.requires_grad_()
    img = G.synthesis(ws, lod=lod)
    noise = torch.randn_like(img) / (img.shape[2] * img.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((img * noise).sum(), ws, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    return F.softplus(-D(img, c, lod=lod)).mean() + 2 * (lengths - 0.1).square().mean(), lengths


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("name", preset_names())
def test_every_parameter_of_every_preset_learns(name, c_dim, tiny):
    G, D = (tiny(config) for config in network_preset(name, 16, c_dim=c_dim))
    G, D = wake(Generator(G)), Discriminator(D)
    c = torch.eye(3)[[0, 1, 2, 0]] if c_dim else None
    for lod in [0.0, 0.5, 1.5] if G.config.progressive else [0.0]:
        loss, lengths = generator_loss(G, D, c, lod)
        assert loss.isfinite() and (lengths > 0).all()
        loss.backward()
    assert_every_parameter_learns(G)


@pytest.mark.parametrize(("preset", "changes"), ROWS, ids=str)
def test_every_row_of_the_ablation_is_one_config_value(preset, changes, tiny):
    G, D = (tiny(config) for config in network_preset(preset, 16))
    G, D = wake(Generator(replace(G, **changes))), Discriminator(D)
    for lod in [0.0, 0.5, 1.5] if G.config.progressive else [0.0]:
        loss, _ = generator_loss(G, D, None, lod)
        loss.backward()
    assert_every_parameter_learns(G)
    a, b = G(torch.randn(2, 8), noise_mode="none")
    assert (a - b).abs().max() > 1e-3  # the picture depends on z in every row


def test_g_is_synthesis_after_mapping():
    G = wake(Generator(GeneratorConfig(**TINY, c_dim=3)))
    G.mapping.w_avg.normal_()
    z, c = torch.randn(2, 8), torch.eye(3)[:2]
    img = G(z, c, truncation_psi=0.5, truncation_cutoff=2, noise_mode="const")
    ws = G.mapping(z, c, truncation_psi=0.5, truncation_cutoff=2)
    assert torch.equal(img, G.synthesis(ws, noise_mode="const"))
    assert torch.equal(img, G(z, c, 0.5, 2, "const"))  # in the order of the official release
    assert (G.z_dim, G.w_dim, G.c_dim, G.num_ws, G.img_resolution, G.img_channels) == (8, 8, 3, 6, 16, 3)


def test_full_truncation_makes_one_picture_for_all():
    G = Generator(GeneratorConfig(**TINY))
    img = G(torch.randn(3, 8), truncation_psi=0, noise_mode="const")
    torch.testing.assert_close(img[1:], img[:1].expand(2, -1, -1, -1))


@pytest.mark.parametrize("resolution", [(96, 64), (64, 96), (24, 40), (28, 24), (320, 448)])
@pytest.mark.parametrize("preset", ["config-a", "config-e"])
def test_sizes_that_are_no_square(resolution, preset, tiny):
    configs = network_preset(preset, resolution)
    G, D = Generator(tiny(configs[0])), Discriminator(tiny(configs[1]))
    with torch.set_grad_enabled(resolution[0] < 100):
        img = G(torch.randn(2, 8))
        logits = D(img)
    assert img.shape == (2, 3, *resolution) and img.isfinite().all()
    assert logits.shape == (2, 1) and logits.isfinite().all()
    if img.requires_grad:
        F.softplus(-logits).sum().backward()
        assert all(p.grad is not None for name, p in G.named_parameters() if G.config.progressive is False)


@pytest.mark.parametrize("img_channels", range(1, 17))
def test_one_to_sixteen_image_channels(img_channels, tiny):
    for preset in ("config-a", "config-e-gskip-dskip"):
        G, D = (tiny(config) for config in network_preset(preset, 8, img_channels=img_channels))
        img = Generator(G)(torch.randn(2, 8))
        assert img.shape == (2, img_channels, 8, 8)
        assert Discriminator(D)(img).shape == (2, 1)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize(("rho", "style_block"), [(0.0, "instance"), (1.0, "pixel")])
def test_pin_is_adain_at_rho_0_and_pixel_norm_at_rho_1(architecture, rho, style_block):
    pin = wake(Generator(GeneratorConfig(**TINY, style_block="pixel_instance", architecture=architecture)))
    state = pin.state_dict()
    rhos = [name for name in state if name.endswith("rho")]
    assert len(rhos) == pin.num_ws  # one per style block, and 0 at the start
    assert all(state[name].abs().max() == 0 for name in rhos)
    for name in rhos:
        state[name].fill_(rho)
    other = Generator(replace(pin.config, style_block=style_block))
    other.load_state_dict({name: tensor for name, tensor in state.items() if name not in rhos})
    z = torch.randn(3, 8)
    assert torch.equal(pin(z, noise_mode="const"), other(z, noise_mode="const"))


def test_clip_rho_reaches_every_layer():
    G = Generator(GeneratorConfig(**TINY, style_block="pixel_instance"))
    rhos = [parameter for name, parameter in G.named_parameters() if name.endswith("rho")]
    for rho in rhos:
        rho.data.normal_(0.5, 3)
    G.clip_rho()
    assert all(rho.min() >= 0 and rho.max() <= 1 for rho in rhos)
    Generator(GeneratorConfig(**TINY)).clip_rho()  # nothing to do elsewhere


@pytest.mark.parametrize("name", ["config-a", "config-d", "config-f", "config-e-gresnet-dskip"])
def test_a_state_dict_makes_the_same_network(name, tiny):
    for config in network_preset(name, 16, c_dim=2):
        owner = Generator if isinstance(config, GeneratorConfig) else Discriminator
        network = wake(owner(tiny(config)))
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        again = owner(type(config).from_json(network.config.to_json()))
        again.load_state_dict(torch.load(file, weights_only=True))
        x = torch.randn(4, 8) if owner is Generator else torch.randn(4, 3, 16, 16)
        options = {"noise_mode": "const"} if owner is Generator else {}
        c = torch.eye(2)[[0, 1, 1, 0]]
        assert torch.equal(network(x, c, **options), again(x, c, **options))


@pytest.mark.parametrize("name", ["config-a", "config-b", "config-f"])
def test_float64_networks_agree_with_float32(name, tiny):
    G = wake(Generator(tiny(network_preset(name, 32)[0])))
    z = torch.randn(2, 8)
    img = G(z, noise_mode="const")
    exact = G.double()(z.double(), noise_mode="const")
    assert exact.dtype == torch.float64
    assert (img - exact).norm() < 1e-5 * exact.norm()
    assert G(z.double()).dtype == torch.float64  # random noise follows


def test_two_generators_of_one_seed_are_equal():
    networks = []
    for _ in range(2):
        torch.manual_seed(5)
        networks.append(Generator(GeneratorConfig(**TINY)))
    for a, b in zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_wrong_latent_is_refused(refuses):
    G = Generator(GeneratorConfig(**TINY))
    with refuses("z", "[2, 512]", "8]", "G.z_dim"):
        G(torch.zeros(2, 512))
    with refuses("'fix'", "const"):
        G(torch.zeros(2, 8), noise_mode="fix")
