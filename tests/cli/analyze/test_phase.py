import json

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge.analysis import ReaderConfig, factors
from styleforge.analysis.phase_reader import PhaseReader, Poses
from styleforge.cli.analyze import analyze


def phase(*arguments):
    return CliRunner().invoke(analyze, ["phase", *(str(argument) for argument in arguments)])


@pytest.fixture
def small_reader(monkeypatch, tmp_path):
    """A reader that takes a second to train, and always sees teeth."""
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        factors,
        "reader_config",
        lambda G, seed: ReaderConfig(size=G.config.size, seed=seed, num_portraits=40, num_held_out=80, epochs=1),
    )
    train = PhaseReader.train.__func__

    def with_teeth(cls, config, *, progress=None):
        reader = train(cls, config, progress=progress)
        reader.network[-1].bias[-1] += 1
        reader.held_out = [(true, Poses(read.yaw, read.teeth + 1)) for true, read in reader.held_out]
        return reader

    monkeypatch.setattr(PhaseReader, "train", classmethod(with_teeth))


def test_slopes_are_printed_and_written(tmp_path, small_reader):
    out = tmp_path / "out"
    result = phase("--network", save_tiny(tmp_path), "--num=12", "--seed=3", "--outdir", out)
    assert result.exit_code == 0, result.output
    values = json.loads((out / "phase.json").read_text())
    assert values["summary"] in result.output and values["settings"]["num"] == 12
    assert np.isfinite(values["generated"]["eyes"]["slope"]) and (out / "phase.png").exists()
    assert len(list((tmp_path / "cache").rglob("phase-*seed3*"))) == 1


def test_a_network_without_colours_is_one_sentence(tmp_path):
    result = phase("--network", save_tiny(tmp_path, "gray"), "--num=4", "--outdir", tmp_path / "out")
    assert isinstance(result.exception, ValueError) and "1-channel" in str(result.exception)
    assert not (tmp_path / "out").exists()
