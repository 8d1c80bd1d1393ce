import itertools
from dataclasses import replace

import pytest
import torch

from styleforge.networks import GeneratorConfig
from styleforge.networks.synthesis import SynthesisNetwork
from styleforge.ops import box_downsample2d, nearest_upsample2d

STYLE_BLOCKS = ["demodulation", "none", "instance", "pixel", "pixel_instance"]


def make(**values):
    config = GeneratorConfig(**{"resolution": 32, "channel_base": 256, "channel_max": 12, "w_dim": 8} | values)
    network = SynthesisNetwork(config)
    for name, parameter in network.named_parameters():
        if name.endswith(("noise.strength", "bias")):
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def latents(network, num=2, **options):
    return torch.randn(num, network.config.num_ws, network.config.w_dim, **options)


@pytest.mark.parametrize(
    ("style_block", "architecture"), list(itertools.product(STYLE_BLOCKS, ["orig", "skip", "resnet"]))
)
def test_every_style_block_goes_with_every_architecture(style_block, architecture):
    network = make(style_block=style_block, architecture=architecture)
    ws = latents(network)
    img = network(ws)
    assert img.shape == (2, 3, 32, 32) and img.isfinite().all()
    assert (img[0] - img[1]).abs().max() > 1e-3
    # every layer's own w has an effect of its own
    img = network(ws, noise_mode="const")
    for layer in range(network.config.num_ws):
        other = ws.clone()
        other[:, layer] += 1
        changed = not torch.equal(network(other, noise_mode="const"), img)
        assert changed, layer


def test_the_constant_starts_normal_in_stylegan2_and_as_ones_in_stylegan():
    const = make(resolution=(40, 56), channel_base=4096, channel_max=512).b5x7.input.const
    assert const.shape == (512, 5, 7)
    assert const.mean().item() == pytest.approx(0, abs=0.03) and const.std().item() == pytest.approx(1, abs=0.03)
    assert (make(style_block="instance").b4.input.const == 1).all()


@pytest.mark.parametrize(("style_block", "gain"), [("demodulation", 1.0), ("instance", 2**0.5 / 4)])
def test_the_traditional_input_is_the_first_w_through_a_dense_layer(style_block, gain):
    network = make(style_block=style_block, input="latent")
    ws = latents(network, 3)
    inputs = []
    network.b4.input.register_forward_hook(lambda _, __, x: inputs.append(x))
    network(ws)
    weight = network.b4.input.dense.weight  # [12 channels · 4 · 4, 8], drawn from N(0, 1)
    torch.testing.assert_close(inputs[0], (ws[:, 0] @ weight.t() * gain / 8**0.5).reshape(3, 12, 4, 4))


@pytest.mark.parametrize("style_block", ["demodulation", "instance", "pixel_instance"])
def test_noise_modes(style_block):
    network = make(style_block=style_block)
    ws = latents(network)
    const, none = network(ws, noise_mode="const"), network(ws, noise_mode="none")
    assert torch.equal(network(ws, noise_mode="const"), const)
    assert torch.equal(network(ws, noise_mode="none"), none)
    assert not torch.equal(const, none)
    torch.manual_seed(1)
    a, b = network(ws), network(ws)
    torch.manual_seed(1)
    assert not torch.equal(a, b) and torch.equal(network(ws, noise_mode="random"), a)


@pytest.mark.parametrize("style_block", ["demodulation", "instance"])
def test_given_noise_maps_take_the_place_of_the_mode(style_block):
    network = make(style_block=style_block)
    ws = latents(network)
    maps = [layer.const[None, None] for layer in network.noise_inputs()]
    assert len(maps) == (8 if style_block == "instance" else 7)
    for mode in ("random", "none", "const"):
        assert torch.equal(network(ws, noise_mode=mode, noise=maps), network(ws, noise_mode="const"))
    zeros = [torch.zeros_like(noise) for noise in maps]
    torch.testing.assert_close(network(ws, noise=zeros), network(ws, noise_mode="none"))
    per_sample = [torch.randn(2, 1, *noise.shape[2:], requires_grad=True) for noise in maps]
    img = network(ws, noise=per_sample)
    for n in range(2):
        single = network(ws[n : n + 1], noise=[noise[n : n + 1] for noise in per_sample])
        torch.testing.assert_close(single, img[n : n + 1], rtol=1e-4, atol=1e-4)
    img.square().sum().backward()  # inversion optimises them
    assert all(noise.grad.abs().max() > 0 for noise in per_sample)


def test_without_noise_all_modes_are_one():
    network = make(use_noise=False)
    ws = latents(network)
    assert torch.equal(network(ws), network(ws, noise_mode="none"))
    assert not list(network.noise_inputs())


@pytest.mark.parametrize("style_block", ["demodulation", "instance"])
def test_at_a_whole_lod_the_picture_is_the_smaller_one_enlarged(style_block):
    network = make(style_block=style_block, architecture="orig", progressive=True)
    ws = latents(network)
    full = network(ws, noise_mode="const")
    for lod in (1, 2, 3):
        img = network(ws, noise_mode="const", lod=lod)
        assert img.shape == full.shape
        small = box_downsample2d(img, 2**lod)
        torch.testing.assert_close(nearest_upsample2d(small, 2**lod), img)
        side = 32 >> lod
        if side >= 8:  # a network of that size with the same weights makes the same picture
            config = replace(network.config, resolution=side)
            smaller = SynthesisNetwork(config)
            smaller.load_state_dict({k: v for k, v in network.state_dict().items() if k in smaller.state_dict()})
            torch.testing.assert_close(smaller(ws[:, : config.num_ws], noise_mode="const"), small)


@pytest.mark.parametrize("style_block", ["demodulation", "instance"])
def test_lod_fades_linearly_and_meets_the_whole_numbers(style_block):
    network = make(style_block=style_block, architecture="orig", progressive=True).double()
    ws = latents(network, dtype=torch.float64)
    pictures = {lod: network(ws, noise_mode="const", lod=lod) for lod in (0, 0.25, 0.5, 1, 1.5, 2, 2.5, 3)}
    for whole in (1, 2, 3):
        near = network(ws, noise_mode="const", lod=whole - 1e-9)
        torch.testing.assert_close(near, pictures[whole], rtol=0, atol=1e-6)
    for whole in (0, 1, 2):
        middle = (pictures[whole] + pictures[whole + 1]) / 2
        torch.testing.assert_close(pictures[whole + 0.5], middle)
    torch.testing.assert_close(pictures[0.25], 0.75 * pictures[0] + 0.25 * pictures[1])


def test_layers_above_the_lod_take_no_part():
    network = make(architecture="orig", progressive=True)
    network(latents(network), lod=1.5).sum().backward()
    used = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert used == {"b4", "b8", "b16"}


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_memory_formats_and_batches_make_no_difference(architecture):
    network = make(architecture=architecture)
    ws = latents(network, 3)
    together = network(ws, noise_mode="const")
    for n in range(3):
        torch.testing.assert_close(network(ws[n : n + 1], noise_mode="const")[0], together[n], rtol=1e-4, atol=1e-4)


def test_features_neither_vanish_nor_explode_at_the_start():
    network = make(resolution=64, channel_base=4096, channel_max=64, w_dim=64, architecture="resnet", use_noise=False)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") and "affine" not in name:
            torch.nn.init.zeros_(parameter)
    moments = []
    for block in network.blocks:
        block.register_forward_hook(lambda _, __, y: moments.append(y.square().mean().item()))
    network(latents(network, 8))
    assert len(moments) == 5 and all(0.2 < moment < 1.6 for moment in moments), moments


def test_a_mixed_precision_network_returns_pictures_in_the_dtype_of_ws():
    network = make()
    ws = latents(network)
    full = network(ws, noise_mode="const")
    network.compute_dtype = torch.bfloat16
    mixed = network(ws, noise_mode="const")
    assert mixed.dtype == torch.float32 and not torch.equal(mixed, full)
    assert (mixed - full).norm() < 0.05 * full.norm()


@pytest.mark.parametrize("style_block", STYLE_BLOCKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_ws_of_any_dtype_go_through_float32_weights(style_block, dtype):
    network = make(style_block=style_block)
    ws = latents(network)
    img, expected = network(ws.to(dtype), noise_mode="const"), network(ws, noise_mode="const")
    assert img.dtype == dtype
    assert (img.float() - expected).norm() < 0.1 * expected.norm()


def test_bad_inputs_are_refused(refuses):
    network, growing = make(), make(architecture="orig", progressive=True)
    ws = latents(network)
    with refuses("ws", "[2, 7, 8]", "8, 8]", "G.mapping"):
        network(ws[:, :7])
    with refuses("ws", "[2, 8, 9]"):
        network(torch.zeros(2, 8, 9))
    with refuses("ws", "[2, 8]"):
        network(ws[:, 0])
    with refuses("noise_mode", "'fixed'", "random, const, none"):
        network(ws, noise_mode="fixed")
    with refuses("lod", "1", "progressive=True"):
        network(ws, lod=1)
    with refuses("lod", "3.5", "0 to 3"):
        growing(ws, lod=3.5)
    maps = [layer.const[None, None] for layer in network.noise_inputs()]
    with refuses("noise", "6 maps", "7"):
        network(ws, noise=maps[:-1])
    with refuses("noise[0]", "[1, 1, 4, 5]", "1, 4, 4]", "noise_inputs()"):
        network(ws, noise=[torch.zeros(1, 1, 4, 5), *maps[1:]])
