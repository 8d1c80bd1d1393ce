import json

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny, tiny_generator
from tiny_pictures import write_pictures

from styleforge import checkpoint
from styleforge.cli.main import cli
from styleforge.features.stand_ins import DiscriminatorExtractor
from styleforge.networks import Discriminator, DiscriminatorConfig


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


def test_all_are_seen_with_the_eyes_of_the_first_networks_discriminator(tmp_path):
    networks = [str(tmp_path / f"{kind}.safetensors") for kind in ("square", "no-noise")]
    for path, kind in zip(networks, ("square", "no-noise"), strict=True):
        D = Discriminator(DiscriminatorConfig(resolution=16, channel_base=256, channel_max=12))
        checkpoint.save(path, G_ema=tiny_generator(kind), D=D)
    data = write_pictures(tmp_path / "real.zip", 40)
    arguments = ["--data", data, "--metrics=fid0.03k_full", "--extractor=discriminator", "--device=cpu"]
    for order in (networks, networks[::-1]):
        result = CliRunner().invoke(cli, ["compare", *order, *arguments, "--outdir", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        rows = json.loads((tmp_path / "out" / "comparison.json").read_text())
        (checksum,) = {row["measurements"][0]["extractor_checksum"] for row in rows}
        assert checksum == DiscriminatorExtractor(checkpoint.load(order[0]).D).checksum
