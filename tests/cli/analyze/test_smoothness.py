import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge.cli.analyze import analyze


def smoothness(*arguments):
    return CliRunner().invoke(analyze, ["smoothness", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize(
    ("kind", "more", "rank"), [("square", [], None), ("conditional", ["--class=1", "--rank=3"], 3)]
)
def test_numbers_are_printed_and_written(tmp_path, kind, more, rank):
    out = tmp_path / "out"
    result = smoothness("--network", save_tiny(tmp_path, kind), "--num=4", "--moments=3", "--outdir", out, *more)
    assert result.exit_code == 0, result.output
    values = json.loads((out / "smoothness.json").read_text())
    assert values["summary"] in result.output
    assert len(values["singular_values_mean"]) == (rank or 8)
    assert values["singular_values_are_all"] == (rank is None) and values["settings"]["rank"] == rank
    assert (out / "smoothness.png").exists()


@pytest.mark.parametrize("option", [["--trunc=0.5", "--trunc-cutoff=2"], ["--lod=1"]])
def test_what_has_no_single_w_or_no_whole_network_is_a_usage_error(tmp_path, option):
    result = smoothness("--network", save_tiny(tmp_path), "--num=2", *option)
    assert result.exit_code == 2 and "expected" in result.output
