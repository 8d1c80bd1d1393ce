import dataclasses
import math

import pytest

from styleforge.analysis import speed
from styleforge.analysis.speed import WORKS, count_gflop, measure_speed
from styleforge.training import training_preset


def narrow(preset, **changes):
    config = training_preset(preset, 8, batch=4, device="cpu")
    widths = {"channel_base": 32, "channel_max": 4}
    networks = {name: dataclasses.replace(getattr(config, name), **widths) for name in ("generator", "discriminator")}
    return dataclasses.replace(config, **(networks | {"device": "cpu", "workers": 0} | changes))


@pytest.fixture
def small_peak(monkeypatch):
    monkeypatch.setattr(speed, "_PEAK_SIZE", 4)
    monkeypatch.setattr(speed, "_PEAK_CHANNELS", 8)
    monkeypatch.setattr(speed, "_SEC_ON_END", 0.1)


def test_config_f_at_64_has_the_operations_that_the_paper_networks_have():
    gflop = count_gflop(training_preset("config-f", 64, batch=4, device="cpu"))
    per_image = {work: total / 4 for work, total in gflop.items()}
    assert per_image["inference"] == pytest.approx(32.3, abs=0.05)
    assert per_image["g_step"] == pytest.approx(162.9, abs=0.2)
    assert per_image["d_step"] == pytest.approx(230.3, abs=0.3)


def test_operations_grow_with_the_batch_and_are_those_of_the_matrix_products():
    config = narrow("config-f", batch=8)
    one, two = count_gflop(narrow("config-f")), count_gflop(config)
    assert all(two[work] == pytest.approx(2 * one[work]) for work in WORKS)
    G = config.generator
    # By hand, without styles and tRGB, which are small:
    mapping = G.mapping_layers * G.w_dim**2
    layers = [(4, 4, 4), (4, 4, 4), (4, 4, 8)]  # I, O, side at which the convolution works; 4→8 works at 4
    convolutions = sum(9 * i * o * side**2 for i, o, side in layers)
    assert two["inference"] * 1e9 / 8 == pytest.approx(2 * (mapping + convolutions), rel=0.2)


@pytest.mark.usefixtures("small_peak")
@pytest.mark.parametrize("preset", ["config-f", "config-b", "config-a"])
def test_every_work_is_timed_whatever_the_preset_does_without(preset):
    report = measure_speed(narrow(preset), repeats=1)
    assert list(report.works) == list(WORKS)
    for timing in report.works.values():
        assert timing.seconds > 0 and timing.gflop > 0 and 0 < timing.share_of_peak < math.inf
    assert report.works["path_length"].images == 2 and report.works["g_step"].images == 4
    for value in (report.train_img_per_sec, report.peak_conv_gflops, report.loader_img_per_sec, report.checkpoint_sec):
        assert 0 < value < math.inf
    assert (report.dtype, report.batch) == ("float32", 4)
    assert report.device.startswith("cpu, ")


@pytest.mark.usefixtures("small_peak")
def test_bfloat16_and_labels_are_timed_too():
    config = narrow("config-f", precision="bf16")
    labelled = {name: dataclasses.replace(getattr(config, name), c_dim=3) for name in ("generator", "discriminator")}
    report = measure_speed(dataclasses.replace(config, cond=True, **labelled), repeats=1)
    assert report.dtype == "bfloat16"


def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_made(refuses):
    with refuses("batch_gpu", "3 of 4", "--batch-gpu"):
        measure_speed(narrow("config-f", batch_gpu=3), repeats=1)
