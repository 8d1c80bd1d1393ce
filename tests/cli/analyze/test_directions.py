import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge.cli.analyze import analyze


def directions(*arguments):
    return CliRunner().invoke(analyze, ["directions", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize(
    "options", [[], ["--space=v"], ["--method=styles", "--layers=0-2"], ["--strength=-1:1:0.5", "--trunc=0.5"]]
)
def test_directions_are_found_shown_and_kept(tmp_path, options):
    out = tmp_path / "out"
    result = directions("--network", save_tiny(tmp_path), "--num=3", "--seeds=1,4", "--outdir", out, *options)
    assert result.exit_code == 0, result.output
    values = json.loads((out / "directions.json").read_text())
    assert values["summary"] in result.output and len(values["directions"]) == 3
    assert values["settings"]["seeds"] == [1, 4]
    assert len(values["settings"]["strengths"]) == (5 if "--trunc=0.5" in options else 7)
    assert values["settings"]["layers"] == ([0, 1, 2] if "--layers=0-2" in options else None)
    assert (out / "directions.png").exists() and (out / "directions.safetensors").exists()


def test_no_direction_is_taken_where_directions_are_found(tmp_path):
    result = directions("--network", save_tiny(tmp_path), "--direction=x.safetensors")
    assert result.exit_code == 2 and "this command finds" in result.output


def test_factorization_in_v_is_one_sentence(tmp_path):
    result = directions("--network", save_tiny(tmp_path), "--method=styles", "--space=v", "--outdir", tmp_path / "out")
    assert isinstance(result.exception, ValueError) and "styles in w" in str(result.exception)
    assert not (tmp_path / "out").exists()
