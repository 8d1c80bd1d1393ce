import json

import torch
from click.testing import CliRunner
from tiny_generators import save_tiny

from styleforge import checkpoint
from styleforge.cli.analyze import analyze
from styleforge.networks import Generator, GeneratorConfig


def normalization(*arguments):
    return CliRunner().invoke(analyze, ["normalization", *(str(argument) for argument in arguments)])


def test_demodulation_of_config_f_and_rho_of_pin_are_written(tmp_path):
    config = GeneratorConfig(resolution=16, z_dim=8, w_dim=8, channel_max=8, style_block="pixel_instance")
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "pin.safetensors", G_ema=Generator(config))
    for path, quantity in ((save_tiny(tmp_path), "demodulation"), (tmp_path / "pin.safetensors", "rho")):
        out = tmp_path / quantity
        result = normalization("--network", path, "--num=5", "--outdir", out)
        assert result.exit_code == 0, result.output
        assert f"Wrote normalization.json, normalization.png to {out}." in result.output
        assert json.loads((out / "normalization.json").read_text())["quantity"] == quantity
        assert (out / "normalization.png").is_file()


def test_rho_of_a_network_without_pin_is_one_sentence_that_says_who_has_it(tmp_path, refuses):
    for kind in ("square", "config-a"):
        result = normalization("--network", save_tiny(tmp_path, kind), "--of=rho", "--outdir", tmp_path / "out")
        assert isinstance(result.exception, ValueError)
        with refuses("rho", "'pixel_instance' (PIN)"):
            raise result.exception
    assert not (tmp_path / "out").exists()
