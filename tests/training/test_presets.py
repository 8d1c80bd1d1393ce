import math
from dataclasses import replace

import pytest

from styleforge.networks import network_preset, preset_names
from styleforge.training import presets as module
from styleforge.training import training_preset, training_preset_names

TABLE_1 = {
    # style block, R1 interval (0: every step), path length, growing, G / D architecture, channel_base, gamma
    "config-a": ("instance", 0, False, True, "orig", "orig", 16384, 10),
    "config-b": ("demodulation", 0, False, True, "orig", "orig", 16384, 10),
    "config-c": ("demodulation", 16, False, True, "orig", "orig", 16384, 10),
    "config-d": ("demodulation", 16, True, True, "orig", "orig", 16384, 10),
    "config-e": ("demodulation", 16, True, False, "skip", "resnet", 16384, 100),
    "config-f": ("demodulation", 16, True, False, "skip", "resnet", 32768, 10),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_presets_are_the_rows_of_table_1(name):
    style_block, r1_interval, path_length, grows, g_architecture, d_architecture, channel_base, gamma = TABLE_1[name]
    config = training_preset(name, 1024)
    G, D = config.generator, config.discriminator
    assert G.style_block == style_block
    assert D.convention == ("stylegan" if name == "config-a" else "stylegan2")
    assert (config.r1_interval, config.gamma) == (r1_interval, gamma)
    assert (config.pl_weight, config.pl_interval) == (2 if path_length else 0, 8)
    assert (config.growing is not None) == G.progressive == D.progressive == grows
    assert (G.architecture, D.architecture) == (g_architecture, d_architecture)
    assert G.channel_base == D.channel_base == channel_base
    assert G.channel_max == D.channel_max == 512
    assert config.g_lr == config.d_lr == (0.001 if grows else 0.002)


@pytest.mark.parametrize("name", preset_names())
def test_presets_have_the_settings_of_appendix_b(name):
    config = training_preset(name, 256)
    assert (config.generator, config.discriminator) == network_preset(name, 256)
    assert (config.betas, config.eps, config.batch) == ((0, 0.99), 1e-8, 32)
    assert (config.style_mixing_prob, config.w_avg_decay) == (0.9, 0.995)
    assert (config.ema_kimg, config.ema_rampup) == (10, None)
    assert (config.pl_decay, config.pl_batch_shrink) == (0.99, 2)
    assert config.total_kimg == 25000
    assert not config.mirror


@pytest.mark.parametrize("name", ["auto", "config-d", "config-f"])
def test_widths_can_be_given_one_by_one(name):
    own = training_preset(name, 64, device="cpu")
    for widths in ({"channel_base": 2048}, {"channel_max": 48}, {"channel_base": 1024, "channel_max": 32}):
        config = training_preset(name, 64, device="cpu", **widths)
        assert config.generator == replace(own.generator, **widths)
        assert config.discriminator == replace(own.discriminator, **widths)


@pytest.mark.parametrize("name", ["config-a", "config-d"])
def test_growing_has_the_settings_of_appendix_b(name):
    growing = training_preset(name, 1024).growing
    assert (growing.start_resolution, growing.train_kimg, growing.fade_kimg) == (8, 600, 600)
    assert growing.lr_by_resolution == {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}


def test_cells_of_table_2_train_like_config_e():
    e = training_preset("config-e", 64).to_dict()
    cell = training_preset("config-e-gorig-dskip", 64).to_dict()
    assert {key for key in e if e[key] != cell[key]} == {"name", "generator", "discriminator"}


def test_labels_and_channels_reach_both_networks():
    config = training_preset("config-f", 32, img_channels=4, c_dim=10)
    assert config.cond
    for network in (config.generator, config.discriminator):
        assert (network.img_channels, network.c_dim) == (4, 10)
    assert not training_preset("config-f", 32).cond


@pytest.mark.parametrize("name", ["auto", "config-f"])
def test_an_empty_batch_is_refused(refuses, name):
    with refuses("batch", "got 0", "--batch"):
        training_preset(name, 64, batch=0)


def test_names_are_listed_and_others_are_refused(refuses):
    assert training_preset_names() == ["auto", *preset_names()]
    with refuses("'config-g'", "config-f", "auto", "--cfg"):
        training_preset("config-g", 64)


# auto


@pytest.fixture
def gpu(monkeypatch):
    """As if there were a GPU."""
    import torch

    monkeypatch.setattr(module.dist, "pick_device", lambda name: torch.device("cuda", 0))


@pytest.mark.parametrize("resolution", [16, 64, 128, 256, 512, 1024, (384, 512), 384])
@pytest.mark.parametrize("num_processes", [1, 2, 3, 5, 8, 12, 32])
def test_auto_gives_every_process_whole_groups(gpu, resolution, num_processes):
    config = training_preset("auto", resolution, num_processes=num_processes)
    assert config.batch % num_processes == 0
    assert config.batch // num_processes % config.discriminator.mbstd_group == 0
    assert config.batch <= max(64, 4 * num_processes)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 8])
def test_auto_divides_the_batch_of_processors_too(num_processes):
    config = training_preset("auto", 64, device="cpu", num_processes=num_processes)
    assert config.batch % num_processes == 0
    assert config.batch // num_processes % config.discriminator.mbstd_group == 0


@pytest.mark.parametrize(
    ("resolution", "num_processes", "batch"), [(64, 1, 32), (256, 1, 16), (1024, 1, 4), (256, 8, 64), (1024, 8, 32)]
)
def test_auto_takes_the_field_s_batch_on_gpus(gpu, resolution, num_processes, batch):
    config = training_preset("auto", resolution, num_processes=num_processes)
    assert config.batch == batch
    assert config.generator.channel_base == (32768 if resolution >= 512 else 16384)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_auto_takes_gamma_and_half_life_from_pixels_and_batch(device, request):
    if device == "gpu":
        request.getfixturevalue("gpu")
    for resolution in (32, 256, (384, 512)):
        config = training_preset("auto", resolution, device="cpu")
        assert config.gamma == pytest.approx(0.0002 * math.prod(config.generator.size) / config.batch)
        assert config.ema_kimg == pytest.approx(config.batch * 10 / 32)
        assert config.ema_rampup == 0.05


def test_auto_is_narrower_on_processors_but_leaves_no_block_without_channels():
    for resolution in (16, 64, 1024):
        config = training_preset("auto", resolution, device="cpu")
        assert config.generator.channels == config.discriminator.channels
        assert min(config.generator.channels) >= 8
        assert max(config.generator.channels) <= 128
