import pytest
import torch
import torch.nn.functional as F

from styleforge.networks import GeneratorConfig
from styleforge.networks.style_layers import AdaINLayer, ModulatedLayer, StyleNorm, ToRGB
from styleforge.ops import filter2d, instance_norm, make_filter, nearest_upsample2d, pixel_norm, upsample2d


def config(**values):
    return GeneratorConfig(**{"resolution": 16, "w_dim": 5} | values)


def randomize(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def affine(layer, w):
    return w @ layer.weight.t() / w.shape[1] ** 0.5 + layer.bias


def before_the_activation(layer, *arguments):
    """What a StyleGAN2 layer adds to its features, read from one that has no weights, through its leaky ReLU."""
    y = layer(*arguments) / 2**0.5
    return torch.where(y > 0, y, y / 0.2)


def test_noise_is_one_map_for_all_channels_times_a_strength_that_starts_at_0():
    layer, x, w = ModulatedLayer(config(), 3, 4, (6, 8)), torch.randn(2, 3, 6, 8), torch.randn(2, 5)
    assert layer.noise.const.shape == (6, 8) and layer.noise.strength.shape == ()
    assert torch.equal(layer(x, w, "random"), layer(x, w, "none"))  # at the start
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(layer.noise.strength, 0.7)
    const = before_the_activation(layer, x, w, "const")
    torch.testing.assert_close(const, (0.7 * layer.noise.const).expand(2, 4, 6, 8))
    assert before_the_activation(layer, x, w, "none").abs().max() == 0
    given = torch.randn(2, 1, 6, 8)
    for mode in ("random", "const", "none"):
        torch.testing.assert_close(before_the_activation(layer, x, w, mode, given), (0.7 * given).expand(2, 4, 6, 8))
    random = before_the_activation(layer, x, w, "random")
    assert torch.equal(random[:, 0], random[:, 1]) and not torch.equal(random[0], random[1])
    assert not torch.equal(random, before_the_activation(layer, x, w, "random"))


def test_stylegan_has_one_noise_strength_per_feature_map():
    assert AdaINLayer(config(style_block="instance"), 3, 1, (6, 8)).noise.strength.shape == (1, 1, 1)
    layer, x, w = AdaINLayer(config(style_block="instance"), 3, 4, (6, 8)), torch.randn(2, 3, 6, 8), torch.zeros(2, 5)
    assert layer.noise is layer.epilogue.noise and layer.noise.strength.numel() == 4
    torch.nn.init.zeros_(layer.weight)
    layer.noise.strength.data[2] = 3.0  # in one feature map alone
    y = layer(x, w, "const")
    assert y[:, [0, 1, 3]].abs().max() == 0
    torch.testing.assert_close(y[:, 2:3], instance_norm(F.leaky_relu(3 * layer.noise.const, 0.2).expand(2, 1, 6, 8)))


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("style_block", ["demodulation", "none"])
def test_a_stylegan2_layer_is_figure_2d(up, style_block):
    layer = randomize(ModulatedLayer(config(style_block=style_block), 3, 4, (8, 8), up=up)).double()
    x, w = torch.randn(2, 3, 8 // up, 8 // up, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    expected = []
    for n in range(2):
        kernel = layer.weight / 27**0.5 * affine(layer.affine, w)[n, :, None, None]
        if style_block == "demodulation":
            kernel = kernel / (kernel.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        if up == 1:
            y = F.conv2d(x[n : n + 1], kernel, padding=1)
        else:  # pad first, so that what the filter spreads over the border still counts
            large = upsample2d(F.pad(x[n : n + 1], [2, 2, 2, 2]), make_filter([1, 3, 3, 1]).double())
            y = F.conv2d(large, kernel.flip([2, 3]), padding=1)[:, :, 4:-4, 4:-4]
        y = y + layer.noise.const * layer.noise.strength + layer.bias[:, None, None]
        expected.append(F.leaky_relu(y, 0.2) * 2**0.5)
    torch.testing.assert_close(layer(x, w, "const"), torch.cat(expected))


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("style_block", ["instance", "pixel"])
def test_a_stylegan_layer_is_figure_2b(up, style_block):
    layer = randomize(AdaINLayer(config(style_block=style_block), 3, 4, (8, 8), up=up)).double()
    x, w = torch.randn(2, 3, 8 // up, 8 // up, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    weight = layer.weight * (2 / 27) ** 0.5
    if up == 1:
        y = F.conv2d(x, weight, padding=1)
    else:
        y = F.conv2d(nearest_upsample2d(x, 2), weight.flip([2, 3]), padding=1)
        y = filter2d(y, make_filter([1, 2, 1]))
    end = layer.epilogue
    y = y + end.noise.const * end.noise.strength + end.bias[:, None, None]
    y = (instance_norm if style_block == "instance" else pixel_norm)(F.leaky_relu(y, 0.2))
    style = affine(end.norm.affine, w)
    expected = y * (style[:, :4, None, None] + 1) + style[:, 4:, None, None]
    torch.testing.assert_close(layer(x, w, "const"), expected)


@pytest.mark.parametrize(("layer", "style_block"), [(ModulatedLayer, "demodulation"), (AdaINLayer, "instance")])
def test_the_clamp_limits_what_the_activation_gives_and_the_gain_scales_both(layer, style_block):
    x, w = torch.randn(2, 3, 8, 8), torch.randn(2, 5)
    free = randomize(layer(config(style_block=style_block), 3, 4, (8, 8)))
    clamped = layer(config(style_block=style_block, conv_clamp=0.5), 3, 4, (8, 8))
    clamped.load_state_dict(free.state_dict())
    if layer is ModulatedLayer:
        assert free(x, w, "const").abs().max() > 1
        torch.testing.assert_close(clamped(x, w, "const", gain=0.7), 0.7 * free(x, w, "const").clamp(-0.5, 0.5))
    torch.testing.assert_close(free(x, w, "const", gain=0.7), 0.7 * free(x, w, "const"))
    torch.testing.assert_close(clamped(x, w, "const", gain=0.7), 0.7 * clamped(x, w, "const"))


def test_styles_start_at_scale_1():
    w = torch.zeros(2, 5)
    assert (ModulatedLayer(config(), 3, 4, (8, 8)).affine(w) == 1).all()
    assert (ToRGB(config(), 3).affine(w) == 1).all()
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(StyleNorm(config(style_block="instance"), 3)(x, w), instance_norm(x))


def test_rgb_is_modulated_without_demodulation_in_stylegan2_and_plain_in_stylegan():
    x, w = torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    modulated, plain = randomize(ToRGB(config(), 3)), randomize(ToRGB(config(style_block="instance"), 3))
    style = affine(modulated.affine, w)[:, :, None, None]
    expected = F.conv2d(x * style, modulated.weight / 3**0.5, modulated.bias)
    torch.testing.assert_close(modulated(x, w), expected, rtol=1e-4, atol=1e-4)
    assert plain.affine is None
    torch.testing.assert_close(plain(x), F.conv2d(x, plain.weight / 3**0.5, plain.bias), rtol=1e-4, atol=1e-5)


def test_pin_starts_as_instance_norm_and_rho_stays_in_bounds():
    norm = StyleNorm(config(style_block="pixel_instance"), 3)
    x, w = torch.randn(2, 3, 4, 4), torch.zeros(2, 5)
    assert torch.equal(norm(x, w), instance_norm(x))
    norm.rho.data = torch.tensor([-0.5, 0.25, 1.5])
    norm.clip_rho()
    assert norm.rho.tolist() == [0.0, 0.25, 1.0]
    assert isinstance(norm.rho, torch.nn.Parameter) and norm.rho.requires_grad


def test_rho_learns_from_0_under_an_optimizer():
    norm = StyleNorm(config(style_block="pixel_instance"), 3)
    x, w = torch.randn(8, 3, 4, 4) + torch.tensor([3.0, 0.0, -3.0])[:, None, None], torch.zeros(8, 5)
    optimizer = torch.optim.Adam([norm.rho], lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        (norm(x, w) - pixel_norm(x)).square().mean().backward()
        optimizer.step()
        norm.clip_rho()
    assert norm.rho.min() > 0.8


@pytest.mark.parametrize("style_block", ["demodulation", "none", "instance", "pixel", "pixel_instance"])
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_switches_leave_nothing_behind(style_block, clamp):
    bare = config(style_block=style_block, use_noise=False, use_styles=False, conv_clamp=clamp)
    layer = AdaINLayer if bare.convention == "stylegan" else ModulatedLayer
    names = dict(randomize(layer(bare, 3, 4, (8, 8))).named_parameters())
    assert not any("affine" in name or "noise" in name for name in names)
    y = layer(bare, 3, 4, (8, 8))(torch.randn(2, 3, 8, 8), torch.randn(2, 5))
    assert y.shape == (2, 4, 8, 8)
    if clamp and bare.convention == "stylegan2":
        assert y.abs().max() == clamp
