from dataclasses import replace

import pytest
import torch

from styleforge.networks import Discriminator, Generator, network_preset, preset_names

TABLE_1 = {  # style block, progressive, G, D, channel_base
    "config-a": ("instance", True, "orig", "orig", 16384),
    "config-b": ("demodulation", True, "orig", "orig", 16384),
    "config-c": ("demodulation", True, "orig", "orig", 16384),
    "config-d": ("demodulation", True, "orig", "orig", 16384),
    "config-e": ("demodulation", False, "skip", "resnet", 16384),
    "config-f": ("demodulation", False, "skip", "resnet", 32768),
}
TABLE_2 = {
    f"config-e-g{g}-d{d}": ("demodulation", False, g, d, 16384)
    for g in ("orig", "skip", "resnet")
    for d in ("orig", "skip", "resnet")
}


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", TABLE_1 | TABLE_2)
def test_presets_are_the_rows_and_cells_of_the_papers_tables(name):
    G, D = network_preset(name, 1024)
    assert (G.style_block, G.progressive, G.architecture, D.architecture, G.channel_base) == (TABLE_1 | TABLE_2)[name]
    assert (D.progressive, D.channel_base, D.mbstd_group, D.mbstd_channels) == (G.progressive, G.channel_base, 4, 1)
    assert D.convention == G.convention == ("stylegan" if name == "config-a" else "stylegan2")
    assert (G.z_dim, G.w_dim, G.mapping_layers, G.mapping_lr_multiplier, G.channel_max) == (512, 512, 8, 0.01, 512)
    assert G.use_noise and G.use_styles and G.blur and D.blur and G.constant_input


def test_no_preset_is_left_out():
    assert set(preset_names()) == set(TABLE_1 | TABLE_2)


@pytest.mark.parametrize(
    ("name", "resolution", "num_g", "num_d"),
    [  # as the official releases print them
        ("config-a", 1024, 26_219_627, 23_087_249),
        ("config-f", 1024, 30_370_060, 29_012_513),
        ("config-e", 256, 24_767_458, 24_001_089),
    ],
)
def test_parameters_equal_the_official_counts(name, resolution, num_g, num_d):
    G, D = network_preset(name, resolution)
    with torch.device("meta"):
        assert (num_parameters(Generator(G)), num_parameters(Discriminator(D))) == (num_g, num_d)


@pytest.mark.parametrize(("name", "num_g", "num_d"), [("config-e", 25, 24), ("config-f", 30, 29)])
def test_parameters_in_millions_equal_the_papers(name, num_g, num_d):
    G, D = network_preset(name, 1024)
    with torch.device("meta"):
        assert round(num_parameters(Generator(G)) / 1e6) == num_g
        assert round(num_parameters(Discriminator(D)) / 1e6) == num_d


@pytest.mark.parametrize("name", ["config-a", "config-d", "config-f", "config-e-gresnet-dskip"])
@pytest.mark.parametrize(
    ("resolution", "size"), [(1024, (1024, 1024)), ((384, 512), (384, 512)), ((320, 448), (320, 448))]
)
def test_full_networks_map_latents_to_images_to_logits(name, resolution, size):
    configs = network_preset(name, resolution, img_channels=5, c_dim=7)
    with torch.device("meta"):  # shapes only
        G, D = Generator(configs[0]), Discriminator(configs[1])
        c = torch.zeros(2, 7)
        img = G(torch.zeros(2, 512), c)
        assert img.shape == (2, 5, *size)
        assert D(img, c).shape == (2, 1)


@pytest.mark.parametrize("name", ["config-a", "config-f"])
def test_widths_can_be_given_one_by_one(name):
    own = network_preset(name, 64)
    for widths in ({"channel_base": 2048}, {"channel_max": 48}, {"channel_base": 1024, "channel_max": 32}):
        for config, plain in zip(network_preset(name, 64, **widths), own, strict=True):
            assert config == replace(plain, **widths)


def test_an_unknown_preset_is_refused(refuses):
    with refuses("'config-g'", "config-a", "config-e-gskip-dresnet", "--cfg"):
        network_preset("config-g", 256)
    with refuses("100×100", "96×96"):
        network_preset("config-f", 100)
