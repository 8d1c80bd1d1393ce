"""Triton kernels behind the ops: the same functions, compiled on first use for the GPU, no toolkit needed.

Each module stands beside a reference of `styleforge.ops` that it equals: `bias_act` (modulation scale, noise, bias,
activation, gain and clamp in one pass), `upfirdn2d` and `minibatch_stddev`. They import Triton at their top, so
import them inside functions, after `available()` has said that they can be.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor


@functools.cache
def available() -> bool:
    """Whether Triton is installed. It does not import Triton, and it says nothing about a GPU being there."""
    return importlib.util.find_spec("triton") is not None


Impl = Literal["auto", "triton", "torch"]
"""How an op runs: by its kernel, by PyTorch's own operations, or as `uses_kernel` decides."""


def uses_kernel(x: Tensor, impl: Impl) -> bool:
    """Whether an op on ``x`` runs by its kernel: ``auto`` takes it on CUDA, and says once where Triton is missing."""
    if impl not in get_args(Impl):
        raise ValueError(f"impl: got {impl!r}, expected one of {', '.join(get_args(Impl))}; 'auto' always works")
    if impl != "auto" or not x.is_cuda or torch.compiler.is_compiling():
        return impl == "triton"
    if not available():
        _tell_once()
    return available()


@functools.cache
def _tell_once() -> None:
    warnings.warn(
        "Triton is not installed: PyTorch's own operations run in place of the kernels, slower; pip install triton",
        stacklevel=2,
    )
