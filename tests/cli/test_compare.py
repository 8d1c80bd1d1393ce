import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny
from tiny_pictures import write_pictures

from styleforge.cli.main import cli


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_generators_are_compared(tmp_path):
    networks = [save_tiny(tmp_path, kind) for kind in ("square", "no-noise")]
    data = write_pictures(tmp_path / "real.zip", 40)
    arguments = [*networks, "--data", data, "--metrics=fid0.03k_full,ppl0.02k2_wend", "--extractor=random-vgg"]
    arguments += ["--device=cpu", "--outdir", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["name"] for row in rows] == ["square.safetensors", "no-noise.safetensors"]
    assert len(rows[0]["measurements"]) == 2 and rows[0]["parameters"] > 1000
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
