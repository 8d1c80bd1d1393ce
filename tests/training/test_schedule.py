import math
from dataclasses import replace

import pytest

from styleforge.training import GrowingConfig, training_preset
from styleforge.training.schedule import batch_at, ema_decay_at, learning_rates_at, lod_at, resets_optimizers


@pytest.fixture
def config():
    return training_preset("config-d", 1024)


def described_lod(kimg, resolution=1024):
    """The words of Appendix B, one stretch of training after the other: 600 kimg as it is, 600 kimg fading in."""
    lod = int(math.log2(resolution // 8))
    while lod > 0:
        if kimg <= 600:
            return lod
        kimg -= 600
        if kimg < 600:
            return lod - kimg / 600
        kimg -= 600
        lod -= 1
    return 0


def test_lod_is_as_described(config):
    for kimg in [*range(0, 9500, 37), 599.999, 600, 600.001, 900, 1199.99, 1200, 1200.01, 8400, 25000]:
        assert lod_at(config, round(kimg * 1000)) == pytest.approx(described_lod(kimg), abs=1e-5)


@pytest.mark.parametrize("resolution", [16, 64, 256])
def test_lod_starts_at_8_pixels_and_ends_at_full_resolution(resolution):
    config = training_preset("config-a", resolution)
    halvings = int(math.log2(resolution / 8))
    assert lod_at(config, 0) == halvings
    assert lod_at(config, 1_200_000 * halvings - 1) > 0
    assert lod_at(config, 1_200_000 * halvings) == 0


def test_small_images_and_late_starts_have_no_lod():
    assert lod_at(training_preset("config-d", 8), 0) == 0
    config = training_preset("config-d", 16)
    assert lod_at(replace(config, growing=GrowingConfig(start_resolution=1024)), 0) == 0


def test_growing_may_start_at_the_base_grid_and_without_fades(config):
    growing = GrowingConfig(start_resolution=4, train_kimg=1, fade_kimg=0)
    config = replace(training_preset("config-d", 16), growing=growing)
    assert [lod_at(config, nimg) for nimg in (0, 999, 1000, 1999, 2000, 9000)] == [2, 2, 1, 1, 0, 0]


def test_images_that_are_not_square_count_by_their_doublings():
    """512×384 is 4×3 doubled seven times, as 512×512 is 4×4: it starts after one doubling."""
    config = training_preset("config-d", (384, 512))
    assert lod_at(config, 0) == 6
    assert batch_at(config, 6.0) == 256


def test_networks_that_do_not_grow_have_one_schedule():
    config = training_preset("config-f", 1024)
    for nimg in (0, 600_000, 10_000_000):
        lod = lod_at(config, nimg)
        assert lod == 0
        assert batch_at(config, lod) == 32
        assert learning_rates_at(config, lod) == (0.002, 0.002)


def test_batches_are_larger_at_low_resolution(config):
    batches = {8: 256, 16: 128, 32: 64, 64: 32, 128: 32, 256: 32, 512: 32, 1024: 32}
    for resolution, batch in batches.items():
        lod = math.log2(1024 // resolution)
        assert batch_at(config, lod) == batch
        if lod + 0.5 < 7:  # while it fades in, the new resolution counts
            assert batch_at(config, lod + 0.5) == batch
        assert batch_at(replace(config, batch=4), lod) == batch // 8
    assert batch_at(replace(config, growing=GrowingConfig(start_resolution=4)), 8.0) == 512


def test_learning_rates_rise_with_the_resolution(config):
    rates = {8: 0.001, 16: 0.001, 32: 0.001, 64: 0.001, 128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}
    for resolution, rate in rates.items():
        lod = math.log2(1024 // resolution)
        assert learning_rates_at(config, lod) == (rate, rate)
        if lod + 0.99 < 7:
            assert learning_rates_at(config, lod + 0.99) == (rate, rate)
    assert learning_rates_at(replace(config, g_lr=0.1, d_lr=0.2), 7.0) == (0.1, 0.2)


def test_optimizers_are_reset_when_fades_begin_and_end(config):
    times = list(range(0, 9_000_000, 10_000))
    lods = [lod_at(config, nimg) for nimg in times]
    resets = [now for now, a, b in zip(times[1:], lods, lods[1:], strict=False) if resets_optimizers(a, b)]
    begins = [600_000 + 1_200_000 * i + 10_000 for i in range(7)]  # the first step in which lod is a fraction
    ends = [1_200_000 * (i + 1) for i in range(7)]
    assert resets == sorted(begins + ends)


def test_optimizers_are_kept_within_a_fade_and_within_a_resolution():
    assert not resets_optimizers(1.9, 1.1)
    assert not resets_optimizers(2.0, 2.0)
    assert resets_optimizers(2.0, 1.999)
    assert resets_optimizers(1.001, 1.0)
    assert resets_optimizers(1.001, 0.999)


def test_the_average_has_the_half_life_of_10_kimg():
    config = training_preset("config-f", 64)
    assert ema_decay_at(config, 0, 32) == pytest.approx(0.5 ** (32 / 10_000))
    assert ema_decay_at(config, 5_000_000, 32) ** (10_000 / 32) == pytest.approx(0.5)
    assert ema_decay_at(config, 0, 256) ** (10_000 / 256) == pytest.approx(0.5)


def test_the_half_life_ramps_up_with_the_images_seen():
    config = replace(training_preset("config-f", 64), ema_rampup=0.05)
    assert ema_decay_at(config, 0, 32) == 0
    assert ema_decay_at(config, 32_000, 32) == pytest.approx(0.5 ** (32 / 1600))
    assert ema_decay_at(config, 200_000, 32) == ema_decay_at(config, 10**9, 32) == pytest.approx(0.5 ** (32 / 10_000))


def test_no_half_life_means_no_average():
    assert ema_decay_at(replace(training_preset("config-f", 64), ema_kimg=0), 1000, 32) == 0
