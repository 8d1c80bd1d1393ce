import json

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.jacobian import singular_values
from styleforge.analysis.smoothness import PathLengths, path_lengths, smoothness_report


@pytest.fixture(scope="module")
def G():
    return tiny_generator().double()


def w(num):
    return torch.randn(num, 8, dtype=torch.float64)


def test_speeds_are_those_of_small_differences(G):
    start, end = w(2)
    paths = path_lengths(G, start[None], end[None], num_moments=5)

    def picture(t):
        return G.synthesis(start.lerp(end, t).expand(1, G.num_ws, -1), noise_mode="const")

    for i in range(5):
        t, step = i / 4, 1e-6
        speed = (picture(t + step) - picture(t - step)).square().mean().sqrt() / (2 * step)
        assert float(paths.speeds[0, i]) == pytest.approx(float(speed), rel=1e-4)
    assert float(paths.chords[0]) == pytest.approx(float((picture(1) - picture(0)).square().mean().sqrt()))


def test_no_path_is_shorter_than_its_chord(G):
    starts, ends = w(8).split(4)
    paths = path_lengths(G, starts, ends, num_moments=65)
    assert (paths.detours >= 1).all()


def test_a_steady_pace_is_even_and_has_no_detour():
    paths = PathLengths(speeds=torch.full((1, 9), 2.0).double(), chords=torch.tensor([2.0]).double())
    assert float(paths.lengths) == float(paths.chords)
    assert float(paths.detours) == 1 and float(paths.unevenness) == 0
    uneven = PathLengths(speeds=torch.tensor([[1.0, 3.0]]).double(), chords=torch.tensor([1.0]).double())
    assert float(uneven.lengths) == 2 and float(uneven.unevenness) == 0.5


def test_a_report_has_the_values_of_every_point_and_paths_between_pairs(G, tmp_path):
    points, calls = w(5), []
    report = smoothness_report(G, points, num_moments=3, progress=lambda *call: calls.append(call))
    torch.testing.assert_close(report.values, torch.stack([singular_values(G, point) for point in points]))
    assert calls[-1] == (5, 5) and report.paths.speeds.shape == (2, 3)
    mean, std = report.spectrum
    assert float(mean[0]) == 1 and float(std[0]) == 0
    assert ((report.effective_dimensions >= 1) & (report.effective_dimensions <= 8)).all()
    files = report.write(tmp_path, {"num": 5})
    values = json.loads(files[0].read_text())
    assert values["summary"] == report.summary() and values["settings"] == {"num": 5}
    assert values["singular_values_mean"] == mean.tolist()
    assert files[1].name == "smoothness.png" and files[1].stat().st_size > 1000


def test_one_point_is_refused(G, refuses):
    with refuses("at least 2", "--num"):
        smoothness_report(G, w(1))


def test_random_noise_is_refused(G, refuses):
    with refuses("random", "--noise-mode"):
        smoothness_report(G, w(2), noise_mode="random")
