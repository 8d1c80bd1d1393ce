import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge.cli.analyze import analyze


def normality(*arguments):
    return CliRunner().invoke(analyze, ["normality", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize(("kind", "more"), [("square", []), ("conditional", []), ("conditional", ["--class=1"])])
def test_numbers_are_printed_and_written(tmp_path, kind, more):
    out = tmp_path / "out"
    result = normality("--network", save_tiny(tmp_path, kind), "--num=200", "--outdir", out, *more)
    assert result.exit_code == 0, result.output
    values = json.loads((out / "normality.json").read_text())
    assert values["summary"] in result.output and values["num"] == 200
    assert (out / "normality.png").exists()


def test_a_class_of_an_unconditional_network_is_one_sentence(tmp_path):
    result = normality("--network", save_tiny(tmp_path), "--class=1", "--outdir", tmp_path / "out")
    assert isinstance(result.exception, ValueError) and "unconditional" in str(result.exception)
    assert not (tmp_path / "out").exists()
