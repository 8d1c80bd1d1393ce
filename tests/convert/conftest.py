"""Golden numbers (random weights, inputs, and what the official releases compute from them); reading under a watch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from styleforge.convert import nvlabs, rosinality
from styleforge.networks import Generator, GeneratorConfig

from .official_files import as_module, official_pickle

MAX_SEC = 10
MAX_MEMORY = 1500
"""Megabytes, of which PyTorch itself takes some 500."""


class Golden:
    """One golden file."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))

    def state(self, network: str) -> dict[str, np.ndarray]:
        """The weights of ``G`` or ``D`` under their official names."""
        return {name[2:]: array for name, array in self.arrays.items() if name.startswith(f"{network}.")}

    def tensor(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """An input or a result."""
        return torch.tensor(self.arrays[name]).to(dtype)

    def error(self, result: Tensor, name: str) -> float:
        """‖result - golden‖ / ‖golden‖."""
        expected = self.tensor(name, torch.float64)
        assert result.shape == expected.shape
        return float((result.detach().double() - expected).norm() / expected.norm())


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Golden]:
    """``golden("stylegan2_orig_orig_16")`` reads that file."""
    files: dict[str, Golden] = {}

    def read(name: str) -> Golden:
        if name not in files:
            files[name] = Golden(shared / "golden" / f"{name}.npz")
        return files[name]

    return read


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A small file of the official kind, and one of torch.save's."""
    folder = tmp_path_factory.mktemp("good")
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, channel_max=4, z_dim=4, w_dim=4, mapping_layers=2))
    state = {name: tensor.detach().numpy() for name, tensor in nvlabs.to_state(G).items()}
    official = official_pickle(folder / "official.pkl", {"G_ema": as_module(state, "Generator")})
    torch.save({"g_ema": rosinality.to_state(G), "latent_avg": G.w_avg}, folder / "rosinality.pt")
    return {"official": official, "rosinality": folder / "rosinality.pt"}


@pytest.fixture
def read(tmp_path, good):
    """Reads files under the audit hook: their outcomes, after what must hold for all of them."""

    def run(files):
        folder = tmp_path / "corpus"
        folder.mkdir()
        names = {f"{i:05d}": name for i, name in enumerate(files)}
        for number, name in names.items():
            (folder / number).write_bytes(files[name])
        command = [sys.executable, str(Path(__file__).with_name("watched.py")), str(folder), str(good["official"])]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr[-2000:]
        report = json.loads(done.stdout.splitlines()[-1])
        for number, one in report["results"].items():
            assert one["events"] == [], names[number]
            assert one["sec"] < MAX_SEC, names[number]
            assert one["outcome"] == "read" or one["outcome"].startswith("refused"), (names[number], one)
            assert "\n" not in one["outcome"], names[number]
        assert report["memory"] < MAX_MEMORY
        assert len(report["results"]) == len(files)
        return {names[number]: one["outcome"] for number, one in report["results"].items()}

    return run
