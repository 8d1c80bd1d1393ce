import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge.cli.analyze import analyze


def ablate(*arguments):
    return CliRunner().invoke(analyze, ["ablate", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("kind", ["non-square", "config-a"])
def test_the_strongest_units_of_a_box_are_switched_off(tmp_path, kind):
    out = tmp_path / "out"
    network = save_tiny(tmp_path, kind)
    result = ablate("--network", network, "--seeds=3,5", "--box=2,2,8,9", "--steps=2", "--outdir", out)
    assert result.exit_code == 0, result.output
    layer = {"non-square": "b6x8.conv1", "config-a": "b8.conv1"}[kind]
    assert f"Without one unit of {layer}" in result.output
    biases = "biases.png, " if kind == "config-a" else ""
    assert f"Wrote ablate.json, ablate.png, {biases}noise.png to {out}." in result.output
    values = json.loads((out / "ablate.json").read_text())
    assert values["settings"]["seeds"] == [3, 5] and values["settings"]["box"] == "2,2,8,9"
    assert [picture["seed"] for picture in values["steps"][2]] == [3, 5]
    assert len(values["steps"][2][0]["units"]) == 2


def test_given_units_of_a_given_layer_are_switched_off(tmp_path):
    arguments = [
        "--network",
        save_tiny(tmp_path),
        "--seeds=0",
        "--layer=b16.conv0",
        "--units=1-2",
        "--outdir",
        tmp_path,
    ]
    assert ablate(*arguments).exit_code == 0
    values = json.loads((tmp_path / "ablate.json").read_text())
    assert values["layer"] == "b16.conv0"
    assert [step[0]["units"] for step in values["steps"]] == [[], [1], [2], [1, 2]]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "without any"),
        (["--layer=b9", "--units=1"], "b9"),
        (["--units=1-99"], "--units"),
        (["--box=1,2"], "--box"),
        (["--box=0,0,99,9"], "--box"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, refuses, arguments, part):
    result = ablate("--network", save_tiny(tmp_path), "--seeds=0", "--outdir", tmp_path / "out", *arguments)
    assert isinstance(result.exception, ValueError)
    with refuses(part):
        raise result.exception
    assert not (tmp_path / "out").exists()
