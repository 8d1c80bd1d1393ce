import pytest
import torch

from styleforge.convert import rosinality
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from styleforge.ops import make_filter


@pytest.fixture
def file(golden):
    return golden("rosinality_32")


def awake(network):
    for tensor in network.state_dict().values():
        tensor += 0.3 * torch.randn_like(tensor)
    return network


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_its_weights_give_its_pictures(dtype, tolerance, file):
    latent = file.tensor("in.truncation_latent")
    G, D = rosinality.from_state(file.state("G"), file.state("D"), latent_avg=latent)
    G, D, z = G.to(dtype), D.to(dtype), file.tensor("in.z", dtype)
    assert file.error(G.mapping.map(z), "out.w") < tolerance
    assert file.error(G(z, noise_mode="const"), "out.img_noise_const") < tolerance
    assert file.error(G(z, truncation_psi=0.5, noise_mode="const"), "out.img_psi0.5") < tolerance
    assert file.error(D(file.tensor("out.img_noise_const", dtype)), "out.logits") < tolerance
    assert (G.config.resolution, G.config.mapping_layers, G.config.channels) == (32, 4, [32] * 4)


def test_its_state_comes_back_bit_for_bit(file):
    networks = rosinality.from_state(file.state("G"), file.state("D"))
    for network, key in zip(networks, "GD", strict=True):
        again, state = rosinality.to_state(network), file.state(key)
        assert again.keys() == state.keys()
        for name, array in state.items():
            tolerance = 1e-7 if name.endswith("kernel") else 0
            torch.testing.assert_close(again[name], torch.tensor(array), rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize(
    "values",
    [
        {"resolution": 8, "channel_base": 32},
        {"resolution": 64, "channel_base": 300, "channel_max": 20, "mapping_layers": 1},
        {"resolution": 128, "channel_base": 256, "channel_max": 4, "img_channels": 1},
    ],
    ids=str,
)
def test_networks_come_back_bit_for_bit(values):
    G = awake(Generator(GeneratorConfig(**{"z_dim": 6, "w_dim": 6, "mapping_layers": 2} | values)))
    shared = {key: value for key, value in values.items() if key != "mapping_layers"}
    D = awake(Discriminator(DiscriminatorConfig(**shared)))
    again = rosinality.from_state(rosinality.to_state(G), rosinality.to_state(D))
    for network, other in zip((G, D), again, strict=True):
        assert network.config.channels == other.config.channels
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("key", ["G", "D"])
def test_every_missing_or_superfluous_tensor_is_named(key, file, refuses):
    states = {"G": file.state("G"), "D": file.state("D")}
    for name in states[key]:
        rest = {other: array for other, array in states[key].items() if other != name}
        with refuses("rosinality", f"without '{name}'", "complete"):
            rosinality.from_state(**{f"{k.lower()}_state": v for k, v in (states | {key: rest}).items()})
    more = states[key] | {"something.else": states["G"]["conv1.noise.weight"]}
    with refuses("something.else", "does not have"):
        rosinality.from_state(**{f"{k.lower()}_state": v for k, v in (states | {key: more}).items()})


def test_another_filter_is_refused(file, refuses):
    state = file.state("G") | {"convs.0.conv.blur.kernel": 4 * make_filter([1, 2, 2, 1]).numpy()}
    with refuses("convs.0.conv.blur.kernel", "[1, 3, 3, 1]"):
        rosinality.from_state(state)


SMALL = {"resolution": 8, "channel_base": 32}


@pytest.mark.parametrize(
    ("network", "part"),
    [
        (Generator(GeneratorConfig(**SMALL, z_dim=4, w_dim=4, c_dim=2)), "labels"),
        (Generator(GeneratorConfig(**SMALL, z_dim=4, w_dim=4, architecture="orig")), "architecture 'orig'"),
        (Generator(GeneratorConfig(**SMALL, z_dim=4, w_dim=5)), "different lengths"),
        (Generator(GeneratorConfig(**SMALL, z_dim=4, w_dim=4, use_noise=False)), "no noise"),
        (Generator(GeneratorConfig(**SMALL, z_dim=4, w_dim=4, blur=False)), "unfiltered"),
        (Generator(GeneratorConfig(**SMALL | {"resolution": (8, 6)}, z_dim=4, w_dim=4)), "square"),
        (
            Generator(GeneratorConfig(**SMALL, z_dim=4, w_dim=4, style_block="instance", architecture="orig")),
            "instance",
        ),
        (Discriminator(DiscriminatorConfig(**SMALL, architecture="skip")), "architecture 'skip'"),
        (Discriminator(DiscriminatorConfig(**SMALL, convention="stylegan", architecture="orig")), "StyleGAN's"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_cannot_hold_is_refused(network, part, refuses):
    with refuses("rosinality", part):
        rosinality.to_state(network)


def test_what_it_holds_for_us_alone_is_listed():
    config = GeneratorConfig(resolution=64, z_dim=4, w_dim=4, conv_clamp=256, mapping_lr_multiplier=0.1, img_channels=1)
    with torch.device("meta"):
        lines = rosinality.unheld(Generator(config))
        assert rosinality.unheld(Generator(GeneratorConfig(resolution=64))) == []
        assert rosinality.unheld(Discriminator(DiscriminatorConfig(resolution=64, channel_base=16384))) == []
        assert len(rosinality.unheld(Discriminator(DiscriminatorConfig(resolution=64, mbstd_group=8)))) == 1
    for part in ("±256", "lr_mlp=0.1", "1 image channels"):
        assert any(part in line for line in lines)


def test_noise_maps_that_a_state_lacks_are_always_the_same(file, refuses):
    state = {name: array for name, array in file.state("G").items() if not name.startswith("noises.")}
    G, again = (rosinality.from_state(state)[0] for _ in range(2))
    maps = [one.const for one in G.synthesis.noise_inputs()]
    assert len(maps) == 7 and all(0.5 < x.std() < 1.5 for x in maps)
    assert all(torch.equal(x, other.const) for x, other in zip(maps, again.synthesis.noise_inputs(), strict=True))
    w = file.tensor("out.w")
    whole = rosinality.from_state(file.state("G"))[0].synthesis(w[:, None].repeat(1, G.num_ws, 1), noise_mode="none")
    assert torch.equal(G.synthesis(w[:, None].repeat(1, G.num_ws, 1), noise_mode="none"), whole)
    with refuses("noises.noise_3"):
        rosinality.from_state({name: x for name, x in file.state("G").items() if name != "noises.noise_3"})
