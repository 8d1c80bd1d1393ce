import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from styleforge import checkpoint, convert
from styleforge.cli import convert as command
from styleforge.cli.main import cli
from styleforge.networks import Generator, GeneratorConfig

CLI = Path(command.__file__).parent


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture
def network(tmp_path):
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4, mapping_layers=2))
    checkpoint.save(tmp_path / "net.safetensors", G_ema=G, info={"kimg": 2})
    return tmp_path / "net.safetensors"


def test_kinds_follow_from_endings_or_from_what_is_asked_for(network, tmp_path):
    for name, options, kind in (
        ("a.pt", [], "rosinality checkpoint"),
        ("a.pth", [], "official state dicts"),
        ("b.pt", ["--to", "official"], "official state dicts"),
        ("b.bin", ["--to", "rosinality"], "rosinality checkpoint"),
    ):
        result = run("convert", network, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        assert f"Wrote {tmp_path / name}" in result.output
        assert convert.kind_of(convert.load_any(tmp_path / name)) == kind
    assert list(convert.TARGETS) == command.KINDS


def test_any_command_takes_any_readable_file(network, tmp_path):
    assert run("convert", network, tmp_path / "x.pt").exit_code == 0
    for name in (network, tmp_path / "x.pt"):
        result = run("generate", "--network", name, "--seeds", "0-1", "--outdir", tmp_path / f"out-{Path(name).name}")
        assert result.exit_code == 0, result.output
    pictures = [(tmp_path / f"out-{name}" / "grid.png").read_bytes() for name in ("net.safetensors", "x.pt")]
    assert pictures[0] == pictures[1]


def test_no_command_reads_checkpoints_in_another_way():
    for path in CLI.rglob("*.py"):
        if path.name != "demo.py":  # reads what it has just written
            assert not re.search(r"\bcheckpoint\.load\b|load_generator", path.read_text(encoding="utf-8")), path


def test_graphs_are_compared_with_pytorch(network, tmp_path):
    pytest.importorskip("onnxruntime")
    result = run("convert", network, tmp_path / "x.onnx", "--part", "mapping")
    assert result.exit_code == 0, result.output
    assert float(re.search(r"differ by at most (\S+)", result.output)[1]) < 1e-3
    ws = convert.onnx.run(tmp_path / "x.onnx", {"z": np.ones((3, 4), "f4"), "truncation_psi": np.float32(1)})
    G = checkpoint.load(network).generator
    torch.testing.assert_close(torch.tensor(ws), G.mapping(torch.ones(3, 4)), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_one_sentence_and_leaves_nothing(network, tmp_path, refuses):
    for arguments, parts in (
        ((network, tmp_path / "x.abc"), ("no known ending", "--to")),
        ((tmp_path / "nothing.pkl", tmp_path / "x.pt"), ("no such file",)),
    ):
        result = run("convert", *arguments)
        assert result.exit_code != 0
        assert all(part in str(result.exception) for part in parts)
    assert not list(tmp_path.glob("x.*"))


def test_networks_go_to_the_hub(network, monkeypatch):
    pushed = []

    def push(loaded, repo_id, *, private):
        pushed.append((loaded.generator.img_resolution, repo_id, private))
        return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr("styleforge.convert.hub.push", push)
    result = run("convert", network, "hf://someone/x", "--private")
    assert result.exit_code == 0 and "huggingface.co/someone/x" in result.output
    assert pushed == [(8, "someone/x", True)]
