import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge import analysis
from styleforge.analysis import ReaderConfig
from styleforge.cli.analyze import analyze
from styleforge.cli.main import cli
from styleforge.data.portraits import FACTORS


@pytest.fixture
def small_reader(monkeypatch, tmp_path):
    """A reader that takes a second to train."""
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))

    def config(G, seed):
        return ReaderConfig(size=G.config.size, seed=seed, num_portraits=40, num_held_out=20, epochs=1)

    monkeypatch.setattr(analysis, "reader_config", config)


def factors(*arguments):
    return CliRunner().invoke(analyze, ["factors", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("kind", ["non-square", "conditional"])
def test_factors_are_printed_and_written(tmp_path, small_reader, kind):
    out = tmp_path / "out"
    label = ["--class=1"] if kind == "conditional" else []
    result = factors("--network", save_tiny(tmp_path, kind), "--num=10", "--outdir", out, *label)
    assert result.exit_code == 0, result.output
    assert all(factor.name in result.output for factor in FACTORS)
    assert f"Wrote factors.json, factors.png to {out}." in result.output
    values = json.loads((out / "factors.json").read_text())
    assert values["settings"]["num"] == 10 and values["settings"]["truncation_psi"] == 1
    assert values["settings"]["network"].endswith(f"{kind}.safetensors")
    assert values["summary"] in result.output
    assert (out / "factors.png").stat().st_size > 1000


def test_the_same_command_gives_the_same_files_from_the_cached_reader(tmp_path, small_reader):
    command = ["--network", save_tiny(tmp_path), "--num=10", "--seed=5", "--batch=4"]
    for name in ("a", "b"):
        assert factors(*command, "--outdir", tmp_path / name).exit_code == 0
    for name in ("factors.json", "factors.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


def test_truncation_narrows_what_is_read(tmp_path, small_reader):
    network = save_tiny(tmp_path)
    for psi in (0, 1):
        assert (
            factors("--network", network, "--num=10", f"--trunc={psi}", "--outdir", tmp_path / f"{psi}").exit_code == 0
        )
    values = [json.loads((tmp_path / f"{psi}" / "factors.json").read_text())["factors"] for psi in (0, 1)]
    assert values[0]["skin"]["spread"] < 1e-3 < values[1]["skin"]["spread"]


def test_a_network_without_colours_is_refused(tmp_path):
    result = factors("--network", save_tiny(tmp_path, "gray"), "--outdir", tmp_path / "out")
    assert isinstance(result.exception, ValueError) and "1-channel" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_help_says_which_networks_it_is_for():
    result = CliRunner().invoke(cli, ["analyze", "factors", "--help"])
    assert result.exit_code == 0
    assert "For networks that were trained on the portraits" in result.output
    assert "factors" in CliRunner().invoke(cli, ["analyze", "--help"]).output
