"""The commands of README.md, run in their order in an empty folder; what takes hours is made small."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from styleforge.checkpoint import BUNDLED
from styleforge.cli.main import cli
from styleforge.data.portraits import write_portraits

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_QUICK = ["--metrics", "fid0.02k,pr0.02k3", "--extractor", "random-vgg"]
# Command -> options that make it small. They are appended, and the last one counts.
SMALL = {
    "data demo": ["--num", "24"],
    "train": [*_QUICK, "--kimg", "0.03", "--workers", "0", "--cbase", "512", "--cmax", "8"],
    "train --resume": ["--kimg", "0.05", "--workers", "0"],
    "bench": ["--resolution", "8", "--cbase", "32", "--cmax", "4", "--batch", "1", "--repeats", "1", "--workers", "0"],
    "evaluate": _QUICK,
    "evaluate --per-image-ppl": ["--per-image-ppl", "10"],
    "compare": _QUICK,
    "generate --dest": ["--seeds", "0-9", "--shard-size", "4"],
    "video": ["--w-frames", "2"],
    "project": ["--num-steps", "2"],
    "attribute": ["--num-steps", "2", "--num-calibration", "3"],
    "report": [
        "--num",
        "16",
        "--num-fid",
        "100",
        "--extractor",
        "random-vgg",
        "--skip",
        "diversity,smoothness,ablation",
    ],
    "analyze droplets": ["--num", "8"],
    "analyze resolutions": ["--num", "8"],
    "analyze directions": ["--num", "2"],
    "evaluate-inversion": ["--num", "2", "--num-steps", "2", "--num-steps-plus", "2"],
}
MADE_BY_MAKE = {"make test", "make demo"}
"""Run by CI itself, and by `tests/cli/test_demo.py`."""


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if kind == language]


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def small(arguments: list[str]) -> list[str]:
    """The arguments with what makes them small behind them."""
    command = " ".join(arguments[:2]) if arguments[0] in ("data", "analyze") else arguments[0]
    for mode in ("--resume", "--per-image-ppl", "--dest"):
        if mode in arguments:
            command = f"{command} {mode}"
    return [*arguments, *SMALL.get(command, [])]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    write_portraits(folder / "photos", resolution=96, num=3)
    return folder


def test_every_command_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("STYLEFORGE_CACHE", str(workplace / "cache"))
    monkeypatch.setattr("styleforge.analysis.speed._PEAK_SIZE", 4)
    for command in commands():
        if command in MADE_BY_MAKE:
            continue
        program, *arguments = shlex.split(command)
        assert program == "styleforge", f"a command that no test runs: {command}"
        result = CliRunner().invoke(cli, small(arguments))
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
    assert len(list(Path("out").glob("seed*.png"))) == 36
    assert len(list(Path("out/shards").glob("*.tar"))) == 3
    assert Path("out/walk.gif").exists() and Path("photos_64.zip").exists()


def test_every_piece_of_python_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["img"].shape == (4, 3, 64, 64)  # as the comment there says


def test_every_link_to_a_file_leads_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_bundled_model_is_small():
    assert (BUNDLED / "demo.safetensors").stat().st_size < 5_000_000
