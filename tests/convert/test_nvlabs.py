from dataclasses import replace

import numpy as np
import pytest
import torch

from styleforge.convert import nvlabs
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from styleforge.ops import make_filter

GOLDEN = [
    "stylegan2_skip_resnet_32",
    "stylegan2_skip_resnet_32_cond",
    "stylegan2_orig_orig_16",
    "stylegan2_resnet_skip_16",
]
# float32 as the README of the golden numbers asks; float64 differs by the rounding of the official float32 alone
TOLERANCES = [(torch.float32, 1e-4, 1e-3), (torch.float64, 1e-5, 1e-5)]


def official_state(network, taps=(1, 3, 3, 1)):
    """The state dict that the official release would have for a network of ours."""
    state = {}
    for name, tensor in network.state_dict().items():
        name = name.replace(".input.const", ".const").replace(".noise.", ".noise_").removeprefix("b4.map")
        state["map" + name if name.startswith("ping.") else name] = tensor
    layers = {name.rsplit(".", 1)[0] for name in state if "conv" in name or "skip" in name or "fromrgb" in name}
    layers |= {name.split(".conv1")[0] for name in state if ".conv1" in name}  # the blocks themselves
    layers = {layer for layer in layers if not layer.endswith(("affine", "torgb"))}
    return state | {f"{layer}.resample_filter": make_filter(taps) for layer in layers}


@pytest.mark.parametrize("name", GOLDEN)
def test_configs_are_inferred(name, golden):
    file = golden(name)
    G, D = nvlabs.from_state(file.state("G"), file.state("D"), mbstd_group=file.meta["mbstd_group_size"])
    meta = file.meta
    for config, architecture in ((G.config, meta["g_architecture"]), (D.config, meta["d_architecture"])):
        assert (config.resolution, config.c_dim) == (meta["resolution"], meta["c_dim"])
        assert config.architecture == architecture
        sides = [4 << i for i in range(len(config.channels))]
        assert config.channels == [min(meta["channel_base"] // r, meta["channel_max"]) for r in sides]
    assert (G.config.z_dim, G.config.w_dim, G.config.mapping_layers) == (32, 32, meta["mapping_layers"])
    assert (G.config.style_block, G.config.mapping_features, G.config.progressive) == ("demodulation", None, False)
    assert (D.config.mbstd_group, D.config.mbstd_channels) == (4, 1)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("dtype", "first_order", "second_order"), TOLERANCES)
def test_official_weights_give_the_official_pictures(name, dtype, first_order, second_order, golden):
    file = golden(name)
    G, _ = nvlabs.from_state(file.state("G"))
    G = G.to(dtype)

    def tensor(key):
        return file.tensor(key, dtype)

    z, c, ws = tensor("in.z"), tensor("in.c"), tensor("out.ws")
    assert file.error(G.mapping(z, c), "out.ws") < first_order
    assert file.error(G.mapping(z, c, truncation_psi=0.5), "out.ws_psi0.5") < first_order
    assert file.error(G(z, c, noise_mode="const"), "out.img_noise_const") < first_order
    for mode in ("const", "none"):
        assert file.error(G.synthesis(ws, noise_mode=mode), f"out.img_noise_{mode}") < first_order
    assert file.error(G.synthesis(tensor("in.ws_mixed"), noise_mode="const"), "out.img_mixed") < first_order

    # Path lengths, and the gradient of their loss: second order.
    ws.requires_grad_()
    img = G.synthesis(ws, noise_mode="const")
    (gradient,) = torch.autograd.grad((img * tensor("in.y")).sum(), ws, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    assert file.error(lengths, "out.path_lengths") < second_order
    loss = (lengths - file.meta["pl_target"]).square().mean()
    (gradient,) = torch.autograd.grad(loss, G.synthesis.b4.input.const)
    assert file.error(gradient, "out.pl_grad_const") < second_order


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("dtype", "first_order", "second_order"), TOLERANCES)
def test_official_weights_give_the_official_logits(name, dtype, first_order, second_order, golden):
    file = golden(name)
    D = nvlabs.from_state(file.state("G"), file.state("D"))[1].to(dtype)
    img = file.tensor("out.img_noise_const", dtype).requires_grad_()
    logits = D(img, file.tensor("in.c", dtype))
    assert file.error(logits, "out.logits") < first_order
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    penalty = gradient.square().sum([1, 2, 3])
    assert file.error(penalty, "out.r1_penalty") < second_order
    (gradient,) = torch.autograd.grad(penalty.mean(), D.b4.fc.weight)
    assert file.error(gradient, "out.r1_grad_fc_weight") < second_order


@pytest.mark.parametrize("name", GOLDEN)
def test_the_official_state_comes_back_bit_for_bit(name, golden):
    file = golden(name)
    for network, key in zip(nvlabs.from_state(file.state("G"), file.state("D")), ("G", "D"), strict=True):
        state, again = file.state(key), official_state(network)
        assert again.keys() == state.keys()
        for tensor_name in state:
            assert np.array_equal(again[tensor_name].numpy(), state[tensor_name]), tensor_name


GENERATORS = [
    {"resolution": 8, "channel_base": 32, "channel_max": 8},
    {"resolution": 8, "channel_base": 24, "channel_max": 512},  # base / 4 below the maximum
    {"resolution": 64, "channel_base": 300, "channel_max": 20, "architecture": "orig"},
    {"resolution": 64, "channel_base": 128, "channel_max": 16, "architecture": "resnet", "img_channels": 1},
    {"resolution": 32, "channel_base": 133, "channel_max": 999, "c_dim": 5, "z_dim": 6, "w_dim": 10},
    {"resolution": 32, "channel_base": 64, "use_noise": False, "architecture": "orig", "img_channels": 4},
    {"resolution": 16, "channel_base": 64, "mapping_features": 13, "mapping_layers": 3, "c_dim": 1},
    {"resolution": 16, "channel_base": 64, "mapping_layers": 1, "z_dim": 3, "w_dim": 5, "architecture": "resnet"},
    {"resolution": 16, "channel_base": 64, "blur": False},
    {"resolution": 128, "channel_base": 256, "channel_max": 4, "mapping_layers": 8},
]
DISCRIMINATORS = [
    {"resolution": 8, "channel_base": 32, "channel_max": 8},
    {"resolution": 8, "channel_base": 24, "channel_max": 512, "architecture": "skip"},
    {"resolution": 64, "channel_base": 300, "channel_max": 20, "architecture": "orig", "mbstd_channels": 0},
    {"resolution": 64, "channel_base": 128, "channel_max": 16, "architecture": "skip", "img_channels": 1},
    {"resolution": 32, "channel_base": 133, "channel_max": 999, "c_dim": 5},
    {"resolution": 32, "channel_base": 128, "c_dim": 2, "mapping_features": 7, "mapping_layers": 2, "mbstd_group": 8},
    {"resolution": 16, "channel_base": 64, "blur": False, "mbstd_channels": 2},
    {"resolution": 128, "channel_base": 256, "channel_max": 4, "architecture": "orig"},
]


def awake(network):
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return network


def same_channels(config, like):
    """A config with the other's channel_base and channel_max, where both mean the same channels."""
    assert config.channels == like.channels
    return replace(config, channel_base=like.channel_base, channel_max=like.channel_max)


@pytest.mark.parametrize("values", GENERATORS, ids=str)
def test_generators_of_any_size_and_kind_are_recognised(values):
    config = GeneratorConfig(**{"z_dim": 8, "w_dim": 8, "mapping_layers": 2} | values)
    G = awake(Generator(config))
    G.mapping.w_avg.normal_()
    again, none = nvlabs.from_state(official_state(G, (1, 3, 3, 1) if config.blur else (1, 1)))
    assert none is None
    assert same_channels(again.config, config) == config
    z, c = torch.randn(3, config.z_dim), torch.randn(3, config.c_dim)
    for options in ({}, {"truncation_psi": 0.5, "truncation_cutoff": 3}):
        assert torch.equal(again(z, c, noise_mode="const", **options), G(z, c, noise_mode="const", **options))


@pytest.mark.parametrize("values", DISCRIMINATORS, ids=str)
def test_discriminators_of_any_size_and_kind_are_recognised(values):
    config = DiscriminatorConfig(**values)
    D = awake(Discriminator(config))
    state = official_state(D, (1, 3, 3, 1) if config.blur else (1, 1))
    G = official_state(Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4)))
    again = nvlabs.from_state(G, state, mbstd_group=config.mbstd_group)[1]
    assert same_channels(again.config, config) == config
    img, c = torch.randn(4, config.img_channels, *config.size), torch.randn(4, config.c_dim)
    assert torch.equal(again(img, c), D(img, c))


@pytest.fixture(scope="module")
def states():
    """A small conditional pair of the official kind."""
    G = Generator(GeneratorConfig(resolution=16, channel_base=64, z_dim=4, w_dim=4, mapping_layers=3, c_dim=2))
    D = Discriminator(DiscriminatorConfig(resolution=16, channel_base=64, mapping_layers=3, c_dim=2))
    return {"G": official_state(G), "D": official_state(D)}


def convert(states, **changed):
    states = states | changed
    return nvlabs.from_state(states["G"], states["D"])


@pytest.mark.parametrize("key", ["G", "D"])
def test_every_missing_tensor_is_named(key, states, refuses):
    for name in states[key]:
        rest = {other: tensor for other, tensor in states[key].items() if other != name}
        with refuses("official", f"without '{name}'", "complete"):
            convert(states, **{key: rest})


@pytest.mark.parametrize("name", GOLDEN)
def test_every_tensor_missing_in_a_golden_state_is_named(name, golden, refuses):
    states = {key: golden(name).state(key) for key in "GD"}
    for key, state in states.items():
        for missing in state:
            with refuses(f"without '{missing}'"):
                convert(states, **{key: {k: v for k, v in state.items() if k != missing}})


@pytest.mark.parametrize("key", ["G", "D"])
def test_superfluous_tensors_are_named(key, states, refuses):
    for name in ("mapping.extra", "b4.conv1.weight2", "synthesis.b4.input.const"):
        with refuses("official", f"'{name}'", "does not have"):
            convert(states, **{key: states[key] | {name: torch.zeros(2)}})


@pytest.mark.parametrize("key", ["G", "D"])
def test_every_misshapen_tensor_is_refused(key, states):
    for name, tensor in states[key].items():
        for changed in (
            torch.cat([tensor.reshape(-1), torch.zeros(1)]),
            tensor[None],
            tensor.reshape(-1)[:1].squeeze(),
        ):
            if changed.shape != tensor.shape:
                with pytest.raises(ValueError, match=r"got .* expected"):
                    convert(states, **{key: states[key] | {name: changed}})


def test_foreign_states_are_refused(states, refuses):
    with refuses("official generator", "no known name", "4×4, 8×8"):
        convert(states, G={"convs.0.conv.weight": torch.zeros(1)})
    with refuses("official discriminator", "no known name"):
        convert(states, D={})
    with refuses("official generator"):
        convert(states, G=states["D"])
    with refuses("'mapping.w_avg': got str"):
        convert(states, G=states["G"] | {"mapping.w_avg": "weights"})


@pytest.mark.parametrize("taps", [[1, 2, 1], [1, 4, 6, 4, 1]])
def test_another_filter_is_refused(taps, states, refuses):
    with refuses("synthesis.b8.conv0.resample_filter", "[1, 3, 3, 1]"):
        convert(states, G=states["G"] | {"synthesis.b8.conv0.resample_filter": make_filter(taps)})
    with refuses("filter"):  # two kinds in one network
        convert(states, D=states["D"] | {"b8.resample_filter": make_filter([1, 1])})
