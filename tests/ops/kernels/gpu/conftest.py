"""The kernels run compiled where there is a GPU, and through Triton's interpreter on the CPU everywhere else."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch

from styleforge.ops.kernels import available

# Triton reads this once for each kernel, when the module that defines it is imported, its own ones included.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    """Tensors of these tests lie on the device that the kernels run on."""
    with torch.device("cpu" if INTERPRETED else "cuda"):
        yield


@pytest.fixture(scope="session")
def load_kernels() -> Callable[[str], ModuleType]:
    """``load_kernels("bias_act")`` imports a module of kernels, and makes sure that it can run here."""

    def load(name: str) -> ModuleType:
        if not available():
            pytest.skip("needs Triton, which comes with PyTorch on Linux")
        module = importlib.import_module(f"styleforge.ops.kernels.gpu.{name}")
        if INTERPRETED:
            import triton.language as tl
            from triton.runtime.interpreter import InterpretedFunction

            from styleforge.ops.kernels.gpu.tiles import offsets

            if not all(isinstance(function, InterpretedFunction) for function in (tl.sum, offsets)):
                pytest.fail("Triton was imported before TRITON_INTERPRET=1 was set; set it before pytest starts")
        return module

    return load
