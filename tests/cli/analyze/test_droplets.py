import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge.cli.analyze import analyze


def droplets(*arguments):
    return CliRunner().invoke(analyze, ["droplets", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("kind", ["non-square", "conditional", "config-a"])
def test_droplets_are_counted_and_written(tmp_path, kind):
    out = tmp_path / "out"
    label = ["--class=1"] if kind == "conditional" else []
    result = droplets("--network", save_tiny(tmp_path, kind), "--num=9", "--examples=2", "--outdir", out, *label)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("0 of 9 pictures have a droplet (0.0%)")
    assert f"Wrote droplets.json, droplets.png, activations.png, scores.png to {out}." in result.output
    values = json.loads((out / "droplets.json").read_text())
    assert values["rate"] == 0 and values["settings"]["num"] == 9 and values["settings"]["noise_mode"] == "const"
    assert len(values["examples"]) == 2


def test_a_level_of_detail_is_looked_at_alone(tmp_path):
    network = save_tiny(tmp_path, "config-a")
    assert droplets("--network", network, "--num=3", "--lod=1", "--outdir", tmp_path).exit_code == 0
    assert list(json.loads((tmp_path / "droplets.json").read_text())["layers"])[-1] == "b8.conv1"


def test_fewer_pictures_than_examples_are_all_shown(tmp_path):
    assert droplets("--network", save_tiny(tmp_path), "--num=1", "--outdir", tmp_path).exit_code == 0
    assert len(json.loads((tmp_path / "droplets.json").read_text())["examples"]) == 1


def test_no_pictures_is_a_usage_error(tmp_path):
    result = droplets("--network", save_tiny(tmp_path), "--num=0")
    assert result.exit_code == 2 and "--num" in result.output
