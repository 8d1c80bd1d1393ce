import json

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.ablation import ablate, box_mask, rank_units
from styleforge.analysis.ablation_report import ablation_report
from styleforge.images import to_uint8
from styleforge.latents import generate_ws

from .planted import planted


def test_droplets_are_followed_and_everything_is_written(tmp_path):
    G = tiny_generator("config-a")
    ws = generate_ws(G, range(2))
    with planted(G, "b16.conv0", strength=30):
        report = ablation_report(G, ws, "b16.conv0", seeds=[5, 6], steps=3, redraws=2)
    assert [len(step.units[0]) for step in report.steps] == [0, 1, 2, 3]
    assert [step.units[0] for step in report.kept] == [[unit] for unit in report.steps[-1].units[0]]
    assert torch.equal(report.regions, report.steps[0].droplets.masks)
    written = report.write(tmp_path / "out", {"network": "tiny"})
    assert [path.name for path in written] == ["ablate.json", "ablate.png", "biases.png", "noise.png"]
    values = json.loads(written[0].read_text())
    assert values["settings"] == {"network": "tiny"} and values["layer"] == "b16.conv0"
    assert values["steps"][0][0]["colour_change"] == 0 and values["steps"][0][0]["moved"] == 0
    assert values["steps"][1][0]["seed"] == 5 and values["steps"][1][0]["colour_change"] > 0
    assert values["ranking"][0]["units"][0] == values["steps"][1][0]["units"][0]
    assert len(values["biases"]["b_mu"]) == 12 and len(values["noise"]["scores"]) == 2


def test_given_units_go_alone_and_together():
    G = tiny_generator()
    ws, region = generate_ws(G, range(2)), box_mask(G, (0, 0, 8, 4))
    report = ablation_report(G, ws, "b8.conv1", seeds=[0, 1], units=[2, 7], regions=region)
    assert [step.units for step in report.steps] == [[[]] * 2, [[2]] * 2, [[7]] * 2, [[2, 7]] * 2]
    assert [(step.units, step.keep) for step in report.kept] == [([[2, 7]] * 2, True)]
    for units, step in (([7], report.steps[2]), ([2, 7], report.steps[3])):
        assert torch.equal(step.droplets.images_uint8, to_uint8(ablate(G, ws, "b8.conv1", units)))
    kept = ablate(G, ws, "b8.conv1", [2, 7], keep=True)
    assert torch.equal(report.kept[0].droplets.images_uint8, to_uint8(kept))
    ranked, strengths = rank_units(G, ws, "b8.conv1", region)
    assert torch.equal(report.ranked, ranked) and torch.equal(report.activations, strengths)


def test_colours_are_compared_in_the_region():
    G = tiny_generator()
    ws = generate_ws(G, [0])
    report = ablation_report(G, ws, "b16.conv1", seeds=[0], units=[1], regions=box_mask(G, (3, 2, 7, 5)))
    before, after = (step.droplets.images_uint8[0, :, 2:5, 3:7].double().mean([1, 2]) for step in report.steps)
    numbers = report.numbers()["steps"][1][0]
    assert numbers["colour"] == pytest.approx(after.tolist())
    assert numbers["colour_change"] == pytest.approx(float((after - before).abs().mean()))
    assert numbers["moved"] is None  # there is no droplet


@pytest.mark.parametrize("kind", ["no-noise", "gray", "many-channels"])
def test_only_what_applies_is_written(tmp_path, kind):
    G = tiny_generator(kind)
    report = ablation_report(G, generate_ws(G, [0]), "b8.conv1", seeds=[0], regions=box_mask(G, (0, 0, 4, 4)), steps=1)
    written = [path.name for path in report.write(tmp_path)]
    assert written == ["ablate.json", "ablate.png", *([] if kind == "no-noise" else ["noise.png"])]
    assert report.summary().startswith("Without one unit of b8.conv1, the region's colour changes by")
