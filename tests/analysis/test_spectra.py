import json
import math

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.spectra import HIGH, Spectrum, spectra_report
from styleforge.latents import generate_ws
from styleforge.networks import Generator, GeneratorConfig


def spectrum_of(x):
    spectrum = Spectrum(tuple(x.shape[2:]))
    spectrum.add(x)
    return spectrum


def wave(frequency, size=(64, 64), direction=0.0):
    y, x = torch.meshgrid(*(torch.arange(side).double() for side in size), indexing="ij")
    return (2 * math.pi * frequency * (math.cos(direction) * x + math.sin(direction) * y)).sin()[None, None]


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
@pytest.mark.parametrize("direction", [0.0, 0.5, math.pi / 2])
def test_a_wave_has_its_power_at_its_frequency(size, direction):
    spectrum = spectrum_of(wave(0.2, size, direction))
    peak = spectrum.frequencies[spectrum.radial.argmax()]
    assert float(peak) == pytest.approx(0.2, abs=0.5 / min(size))


def test_powers_sum_to_the_variance():
    x = 3 * torch.randn(40, 2, 32, 32) + 7
    assert float(spectrum_of(x).power.sum()) == pytest.approx(9, rel=0.02)


def test_white_noise_has_the_same_power_everywhere():
    spectrum = spectrum_of(torch.randn(100, 2, 32, 32))
    flat = 1 / 32**2
    torch.testing.assert_close(spectrum.radial[2:], torch.full((14,), flat).double(), rtol=0.1, atol=0)
    frequency = torch.fft.fftfreq(32)
    high = float(((frequency[:, None] ** 2 + frequency**2).sqrt() >= HIGH).double().mean())
    assert spectrum.high_share == pytest.approx(high, rel=0.02)


def test_batches_do_not_matter():
    x = torch.randn(10, 3, 16, 16)
    parts = Spectrum((16, 16))
    for part in x.split(3):
        parts.add(part)
    torch.testing.assert_close(parts.power, spectrum_of(x).power)


def test_a_blur_lowers_the_share_of_high_frequencies():
    x = torch.randn(10, 3, 32, 32)
    blurred = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    assert spectrum_of(blurred).high_share < 0.6 * spectrum_of(x).high_share


def test_a_constant_picture_has_no_power():
    spectrum = spectrum_of(torch.full((2, 3, 16, 16), 5.0))
    assert float(spectrum.power.sum()) == 0 and spectrum.high_share == 0


@pytest.mark.parametrize("kind", ["square", "non-square", "config-a"])
def test_layers_and_pictures_are_measured_and_the_network_is_left_as_it_was(tmp_path, kind):
    G, calls = tiny_generator(kind), []
    ws = generate_ws(G, range(6))
    before = G.synthesis(ws, noise_mode="const")
    real = [torch.randint(0, 256, (4, 3, *G.config.size), dtype=torch.uint8)]
    report = spectra_report(G, ws, real=real, batch=4, progress=lambda *call: calls.append(call))
    assert torch.equal(G.synthesis(ws, noise_mode="const"), before) and calls == [(4, 6), (6, 6)]
    assert list(report.layers)[-1].endswith("conv1") and all(s.count == 6 for s in report.layers.values())
    assert report.real.count == 4 and report.generated.count == 6
    files = report.write(tmp_path)
    values = json.loads(files[0].read_text())
    assert values["summary"] == report.summary() and "dB on average" in values["summary"]
    assert values["layers"].keys() == report.layers.keys() and values["gap_db"]["mean"] == report.gap[0]
    assert files[1].stat().st_size > 1000


def test_the_spectrum_of_a_layer_is_that_of_its_output():
    G = tiny_generator()
    ws, kept = generate_ws(G, range(3)), []
    handle = G.synthesis.b16.conv0.register_forward_hook(lambda module, inputs, output: kept.append(output))
    report = spectra_report(G, ws)
    handle.remove()
    torch.testing.assert_close(report.layers["b16.conv0"].power, spectrum_of(kept[0]).power)
    assert list(report.layers) == ["b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]
    assert report.real is None and report.gap is None and "real" not in report.numbers()


def test_pictures_too_small_for_a_spectrum_are_refused(refuses):
    config = {"resolution": 4, "z_dim": 8, "w_dim": 8, "channel_base": 32, "channel_max": 4}
    G = Generator(GeneratorConfig(**config)).requires_grad_(False)
    with refuses("4×4", "at least 8"):
        spectra_report(G, generate_ws(G, range(2)))
