import json

import pytest
import torch
from click.testing import CliRunner
from tiny_generators import save_tiny, tiny_generator
from tiny_pictures import write_pictures

from styleforge import images
from styleforge.cli.attribute import attribute
from styleforge.latents import generate_images

QUICK = ["--num-steps=6", "--num-calibration=3", "--distance=random-vgg"]


@pytest.fixture
def network(tmp_path):
    return save_tiny(tmp_path)


@pytest.fixture
def real(tmp_path):
    return write_pictures(tmp_path / "real.zip", 4)


def run(*arguments):
    return CliRunner().invoke(attribute, [str(argument) for argument in arguments])


def made(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def test_pictures_are_held_against_every_network(tmp_path, network, real):
    (picture,) = (part[0] for *_, part in generate_images(tiny_generator(), [7]))
    images.save(picture, tmp_path / "found.png")
    other = save_tiny(tmp_path, "config-a")
    out = tmp_path / "out"
    text = made(
        "--network", network, "--network", other, "--real", real, "--images", tmp_path / "found.png", *QUICK,
        "--outdir", out,
    )  # fmt: skip
    assert "AUC" in text and "found" in text and "random-vgg stands in for LPIPS" in text
    names = {"attribution.json", "attribution.png", "calibration-0.json", "calibration-1.json"}
    assert {path.name for path in out.iterdir()} == names
    report = json.loads((out / "attribution.json").read_text())
    (row,) = report["images"]
    assert row["name"] == "found" and set(row["ranking"]) == set(row["distances"]) == {network, other}
    best = row["ranking"][0]
    assert row["scores"][best] == min(row["scores"].values())
    assert row["made_by"] == (best if row["scores"][best] <= 1 else None)
    for name in (network, other):
        calibration = report["networks"][name]
        assert len(calibration["generated"]) == len(calibration["real"]) == 3
        ratio = row["distances"][name] / calibration["threshold"]
        assert row["scores"][name] == pytest.approx(ratio, rel=1e-5)


def test_a_calibration_is_used_again_for_the_same_question_alone(tmp_path, network, real, monkeypatch):
    from styleforge import inversion

    command = ["--network", network, "--network", network, "--real", real, *QUICK, "--outdir", tmp_path]
    made(*command)
    before = (tmp_path / "calibration-0.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(inversion, "calibrate", None)
        made(*command)
    assert (tmp_path / "calibration-0.json").read_bytes() == before
    made(*command, "--seed=1")
    assert (tmp_path / "calibration-0.json").read_bytes() != before
    for other in ("[]", "{}", "half"):
        (tmp_path / "calibration-0.json").write_text(other)
        made(*command)
    assert (tmp_path / "calibration-0.json").read_bytes() == before


def test_a_network_that_changed_under_its_name_is_calibrated_anew(tmp_path, network, real):
    from styleforge import checkpoint

    command = ["--network", network, "--real", real, *QUICK, "--outdir", tmp_path]
    made(*command)
    before = json.loads((tmp_path / "calibration-0.json").read_text())
    G = tiny_generator()
    G.synthesis.noise_inputs()[0].strength.fill_(torch.pi)
    checkpoint.save(network, G_ema=G)
    made(*command)
    after = json.loads((tmp_path / "calibration-0.json").read_text())
    assert before["generated"] != after["generated"]


@pytest.mark.parametrize(("generated", "noted"), [([1.0, 2.0, 9.0], True), ([1.0, 2.0, 3.0], False)])
def test_a_calibration_that_tells_badly_gets_a_note(tmp_path, network, real, monkeypatch, generated, noted):
    from styleforge import inversion

    made_up = inversion.Calibration(generated=generated, real=[6.0, 7.0, 8.0] if not noted else [1.0, 3.0, 8.0])
    monkeypatch.setattr(inversion, "calibrate", lambda *arguments, **named: made_up)
    text = made("--network", network, "--real", real, *QUICK, "--outdir", tmp_path)
    assert ("are to be expected wrong" in text) == noted


def test_too_few_real_pictures_are_refused(tmp_path, network, refuses):
    real = write_pictures(tmp_path / "two.zip", 2)
    result = run("--network", network, "--real", real, *QUICK, "--outdir", tmp_path / "out")
    with refuses("real: got 2, expected 3 or more", "--real"):
        raise result.exception
    assert not (tmp_path / "out").exists()


def test_a_missing_picture_is_noticed_before_the_long_work(tmp_path, network, real):
    result = run("--network", network, "--real", real, *QUICK, "none.png", "--outdir", tmp_path / "out")
    assert isinstance(result.exception, FileNotFoundError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "Missing option '--network'"),
        (["--network=demo"], "Missing option '--real'"),
        (["--network=demo", "--real=x.zip", "--num-calibration=2"], "2 is not in the range x>=3"),
        (["--network=demo", "--real=x.zip", "--distance=pixel+discriminator"], "is not one of"),
    ],
)
def test_flags_that_do_not_fit_are_a_usage_error(arguments, part):
    result = run(*arguments)
    assert result.exit_code == 2
    assert part in " ".join(result.output.split())


def test_help_has_groups_and_examples():
    text = run("--help").output
    for part in ("Model:", "Pictures:", "Search:", "Distance:", "Examples:", "--real"):
        assert part in text
