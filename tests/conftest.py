"""Fixtures for all tests: the shared reference material, seeds, threads, and what a refusal must say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported, which any test may cause
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # The workers share the cores; more threads would only wait for each other.


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same random numbers, alone or in a crowd."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photos and golden numbers, beside the project or in $STYLEFORGE_SHARED."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("STYLEFORGE_SHARED", beside))
    if not path.is_dir():
        pytest.skip(f"needs the shared reference material: {path} is no folder; set STYLEFORGE_SHARED to it")
    return path


@contextmanager
def _refuses(*parts: str) -> Iterator[None]:
    with pytest.raises(ValueError) as info:
        yield
    message = str(info.value)
    assert "\n" not in message, f"more than one line: {message}"
    for part in ("got", "expected", *parts):
        assert part in message, f"no {part!r} in: {message}"


@pytest.fixture(scope="session")
def refuses() -> Callable[..., AbstractContextManager[None]]:
    """``with refuses("part", …):`` expects a ValueError of one line: what came, what was expected, and the parts."""
    return _refuses
