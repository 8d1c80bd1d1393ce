import json

import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_generators import save_tiny
from tiny_pictures import write_pictures

from styleforge.cli.evaluate_inversion import evaluate_inversion
from styleforge.inversion import evaluation

QUICK = ["--num=3", "--num-steps=2", "--num-steps-plus=3", "--distance=random-vgg"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def command(tmp_path):
    real = write_pictures(tmp_path / "real.zip", 4)
    return ["--network", save_tiny(tmp_path), "--real", real, *QUICK, "--outdir", str(tmp_path / "out")]


def run(*arguments):
    return CliRunner().invoke(evaluate_inversion, [str(argument) for argument in arguments])


def made(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def test_every_condition_is_measured(tmp_path, command):
    text = made(*command)
    assert "midpoint G+" in text and "W+ + prior 0.0001" in text and "8/8 W+ + prior 0.0001 on G+" in text
    out = tmp_path / "out"
    sheets = {f"interpolations-{kind}.png" for kind in ("R", "G", "G+")}
    assert {path.name for path in out.iterdir()} == sheets | {"inversion.json", "inversion.png", "inversions"}
    report = json.loads((out / "inversion.json").read_text())
    assert (report["distance"], report["num_steps"], report["num_steps_plus"]) == ("random-vgg", 2, 3)
    assert len(report["conditions"]) == 8
    with Image.open(out / "interpolations-G.png") as sheet:
        assert sheet.size == (11 * 16, 3 * 16)  # one pair of the three pictures: true, without a prior, with it


def test_the_command_goes_on_where_it_was_interrupted(tmp_path, command, monkeypatch):
    made(*command)
    before = (tmp_path / "out/inversion.json").read_bytes()
    next((tmp_path / "out/inversions").iterdir()).write_bytes(b"half")
    calls = []
    original = evaluation.invert
    monkeypatch.setattr(evaluation, "invert", lambda *a, **k: calls.append(1) or original(*a, **k))
    made(*command)
    assert (tmp_path / "out/inversion.json").read_bytes() == before
    assert len(calls) == 1
    made(*command, "--prior-weights=1e-4,0")
    assert len(calls) == 1 + 4
    made(*command, "--seed=1")
    assert len(calls) == 5 + 8


def test_fewer_real_pictures_than_asked_for_are_enough(tmp_path, command):
    made(*command, "--real", write_pictures(tmp_path / "more.zip", 1, seed=1), "--num=8", "--prior-weights=1e-4")
    report = json.loads((tmp_path / "out/inversion.json").read_text())
    assert (report["num"], report["num_real"]) == (8, 5)
    with Image.open(tmp_path / "out/interpolations-R.png") as sheet:
        assert sheet.size == (11 * 16, 2 * 2 * 16)  # two pairs of five: without a prior, with it


def test_too_few_real_pictures_are_refused(tmp_path, refuses):
    real = write_pictures(tmp_path / "one.zip", 1)
    result = run("--network", save_tiny(tmp_path), "--real", real, *QUICK, "--outdir", tmp_path / "out")
    with refuses("real: got 1 picture", "--real"):
        raise result.exception
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", ["a", "1,-1", "inf", ""])
def test_impossible_weights_are_a_usage_error(command, weights):
    result = run(*command, f"--prior-weights={weights}")
    assert result.exit_code == 2
    assert "expected numbers from 0 on" in " ".join(result.output.split())


def test_help_has_groups_and_examples():
    text = run("--help").output
    for part in ("Model:", "Pictures:", "Search:", "Distance:", "Examples:", "--prior-weights"):
        assert part in text
