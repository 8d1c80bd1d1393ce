import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from tiny_generators import tiny_generator

from styleforge.analysis.droplet_report import draw_layer_scores, outlined, survey, viewable
from styleforge.analysis.droplets import detect
from styleforge.latents import generate_ws

from .planted import planted


@pytest.mark.parametrize("noise_mode", ["const", "random"])
def test_a_survey_is_the_detection_of_all_pictures(noise_mode):
    G = tiny_generator("config-a")
    ws = generate_ws(G, range(10))
    report = survey(G, ws, examples=3, noise_mode=noise_mode, batch=4)
    droplets = detect(G, ws, noise_mode=noise_mode)
    torch.testing.assert_close(report.scores, droplets.score, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(report.layer_scores, droplets.layer_scores, rtol=1e-3, atol=1e-3)
    assert report.seeds == report.scores.argsort(descending=True)[:3].tolist()
    torch.testing.assert_close(report.examples.score, report.scores[report.seeds], rtol=1e-3, atol=1e-3)
    for i in range(3):
        assert float(report.peak_maps[i].max()) == pytest.approx(float(report.examples.score[i]), rel=1e-3)


def test_the_report_is_written_with_its_pictures(tmp_path):
    G = tiny_generator("non-square")
    done = []
    with planted(G, "b24x32.conv1"):
        report = survey(G, generate_ws(G, range(6)), examples=2, batch=4, progress=lambda *state: done.append(state))
    assert done == [(4, 6), (6, 6)]
    assert report.rate == 1 and "6 of 6 pictures have a droplet (100.0%)" in report.summary()
    written = report.write(tmp_path / "out", {"network": "tiny"})
    assert [path.name for path in written] == ["droplets.json", "droplets.png", "activations.png", "scores.png"]
    values = json.loads(written[0].read_text())
    assert values["settings"] == {"num": 6, "network": "tiny"}
    assert values["rate"] == 1 and values["layers"]["b24x32.conv1"]["rate"] == 1
    assert values["scores"]["max"] == pytest.approx(float(report.scores.max()))
    assert all(0 < example["covered"] < 0.1 for example in values["examples"])
    for path in written[1:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 200


@pytest.mark.parametrize("kind", ["gray", "rgba", "many-channels"])
def test_pictures_of_any_channels_are_drawn(tmp_path, kind):
    G = tiny_generator(kind)
    assert survey(G, generate_ws(G, range(2)), examples=1).write(tmp_path)


def test_viewable_maps_reach_one_end_of_the_range():
    x = torch.randn(3, 5, 5) * torch.tensor([1.0, 100, 0])[:, None, None] + 7
    seen = viewable(x)
    torch.testing.assert_close(seen.abs().amax([1, 2]), torch.tensor([1.0, 1, 0]))
    torch.testing.assert_close(seen[:2].flatten(1).median(1).values, torch.zeros(2), rtol=0, atol=1e-5)


def test_the_outline_leaves_the_masked_pixels_visible():
    picture = torch.full((3, 12, 12), 9, dtype=torch.uint8)
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[5, 6] = True
    drawn = outlined(picture, mask)
    assert (drawn[:, 4:7, 5:8] == 9).all()
    assert drawn[:, 3, 6].tolist() == [255, 0, 0]
    assert (drawn[0] == 255).sum() == 16
    assert torch.equal(outlined(picture, torch.zeros_like(mask)), picture)


def test_networks_with_and_without_a_layer_are_drawn_on_one_axis():
    axes = Figure().subplots()
    reports = {kind: survey((G := tiny_generator(kind)), generate_ws(G, range(3))) for kind in ("square", "config-a")}
    draw_layer_scores(axes, reports)
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == reports["config-a"].layers
    for line, report in zip(axes.get_lines(), reports.values(), strict=False):
        assert [names[int(x)] for x in line.get_xdata()] == report.layers
        assert line.get_ydata() == pytest.approx(np.median(report.layer_scores.numpy(), axis=0))
