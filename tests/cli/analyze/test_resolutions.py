import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny, tiny_generator

from styleforge import checkpoint
from styleforge.cli.analyze import analyze


def resolutions(*arguments):
    return CliRunner().invoke(analyze, ["resolutions", *(str(argument) for argument in arguments)])


def test_shares_are_printed_and_written(tmp_path):
    out = tmp_path / "out"
    result = resolutions("--network", save_tiny(tmp_path), "--num=8", "--trunc=0.5", "--outdir", out)
    assert result.exit_code == 0, result.output
    values = json.loads((out / "resolutions.json").read_text())
    assert values["summary"] in result.output and values["settings"]["truncation_psi"] == 0.5
    assert sum(values["points"][0]["contributions"].values()) == pytest.approx(1)
    assert (out / "resolutions.png").exists() and (out / "resolutions-parts.png").exists()


def test_every_snapshot_of_a_run_is_measured(tmp_path):
    for kimg in (1, 2, 3):
        G = tiny_generator()
        G.synthesis.b16.torgb.weight.mul_(kimg)
        checkpoint.save(tmp_path / f"network-snapshot-{kimg:06d}.safetensors", G_ema=G, info={"kimg": kimg})
    result = resolutions("--network", tmp_path, "--num=8", "--over-run", "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    points = json.loads((tmp_path / "out" / "resolutions.json").read_text())["points"]
    assert [point["kimg"] for point in points] == [1, 2, 3]
    shares = [point["contributions"]["16"] for point in points]
    assert shares == sorted(shares) and shares[0] < shares[-1]


def test_a_file_is_no_run(tmp_path):
    result = resolutions("--network", save_tiny(tmp_path), "--over-run")
    assert result.exit_code == 2 and "run directory" in result.output


def test_a_network_with_one_rgb_output_is_one_sentence(tmp_path):
    result = resolutions("--network", save_tiny(tmp_path, "config-a"), "--outdir", tmp_path / "out")
    assert isinstance(result.exception, ValueError) and "configs E and F" in str(result.exception)
    assert not (tmp_path / "out").exists()
