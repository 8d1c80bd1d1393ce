import json

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.directions import LABEL_WIDTH, direction_report
from styleforge.latents import Directions, find_directions, generate_ws, synthesize


@pytest.mark.parametrize("kind", ["square", "gray", "many-channels"])
def test_strips_are_the_pictures_along_each_direction(tmp_path, kind):
    G = tiny_generator(kind)
    ws, found = generate_ws(G, range(2)), find_directions(G, num=3, num_samples=500)
    report = direction_report(G, found, ws, [-2, 0, 2])
    assert report.strips.shape == (3, 2, 3, *synthesize(G, ws).__next__().shape[1:])
    (alone,) = synthesize(G, found.apply(ws, 1, -2))
    assert (report.strips[1, :, 0].int() - alone.int()).abs().max() <= 1
    change = (report.strips[:, :, 2].double() - report.strips[:, :, 0].double()).square().mean([1, 2, 3, 4]).sqrt() / 4
    torch.testing.assert_close(report.changes, change)
    files = report.write(tmp_path, {"seeds": [0, 1]})
    assert [file.name for file in files] == [f"directions.{end}" for end in ("safetensors", "json", "png")]
    values = json.loads(files[1].read_text())
    assert values["summary"] == report.summary() and values["settings"]["strengths"] == [-2, 0, 2]
    assert [one["index"] for one in values["directions"]] == [0, 1, 2]
    assert torch.equal(Directions.load(files[0], G).vectors, found.vectors)
    assert report.sheet().shape == (3, 6 * 17 - 1, LABEL_WIDTH + 3 * 17 - 1)


def test_the_network_is_left_as_it_was():
    G = tiny_generator()
    ws, found = generate_ws(G, range(2)), find_directions(G, num=2, num_samples=500)
    before = G.synthesis(ws, noise_mode="const")
    direction_report(G, found, ws, [0, 1])
    assert torch.equal(G.synthesis(ws, noise_mode="const"), before)


def test_one_strength_makes_no_strip(refuses):
    G = tiny_generator()
    with refuses("at least 2", "--strength"):
        direction_report(G, find_directions(G, num=1, num_samples=100), generate_ws(G, [0]), [1.0])
