import json

import torch
from click.testing import CliRunner

from styleforge.checkpoint import Checkpoint
from styleforge.cli.main import cli
from styleforge.convert import write
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig


def run(*arguments):
    result = CliRunner().invoke(cli, ["inspect", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_files_of_others_are_described(tmp_path):
    shared = {"resolution": 8, "channel_base": 32, "conv_clamp": 256}
    G = Generator(GeneratorConfig(**shared, z_dim=4, w_dim=6, c_dim=3))
    D = Discriminator(DiscriminatorConfig(**shared, c_dim=3))
    loaded = Checkpoint(G_ema=G, D=D, info={"kimg": 7, "metrics": {"fid50k_full": 2.5}, "licence": "CC0"})
    write(loaded, tmp_path / "x.pth")
    facts = json.loads(run(tmp_path / "x.pth", "--json"))
    assert facts["kind"] == "official state dicts" and facts["source"]["file"] == "x.pth"
    assert facts["networks"]["G_ema"]["parameters"] == sum(p.numel() for p in G.parameters())
    assert facts["networks"]["D"]["config"]["conv_clamp"] == 256
    assert facts["would_lose"]["safetensors"] == [] and "labels" in facts["would_lose"]["rosinality"]
    text = run(tmp_path / "x.pth")
    for part in ("official state dicts", "8×8", "labels of length 3", "clamp 256", "7 kimg", "CC0", "2.5", "sha256"):
        assert part in text


def test_a_training_state_is_shown(tmp_path):
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4))
    write(Checkpoint(G=G, training={"pl_mean": torch.ones(1)}), tmp_path / "x.safetensors")
    text = run(tmp_path / "x.safetensors")
    assert "training can go on: 1 tensors" in text and "the training state (1 tensors)" in text


def test_bundled_models_are_described():
    assert "64×64" in run("demo")
