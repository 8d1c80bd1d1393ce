"""Golden numbers: random weights, inputs, and what the official releases compute from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


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
