"""Triton kernels behind the ops: the same functions, compiled on first use for the GPU, no toolkit needed.

Each module stands beside a reference of `styleforge.ops` that it equals: `bias_act` (modulation scale, noise, bias,
activation, gain and clamp in one pass), `upfirdn2d` and `minibatch_stddev`. They import Triton at their top, so
import them inside functions, after `uses_kernel` has said that they are wanted.
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
    """Whether an op on ``x`` runs by its kernel: ``auto`` takes it on CUDA, where Triton works."""
    if impl not in get_args(Impl):
        raise ValueError(f"impl: got {impl!r}, expected one of {', '.join(get_args(Impl))}; 'auto' always works")
    if impl != "auto" or not x.is_cuda or torch.compiler.is_compiling():
        return impl == "triton"
    return _run_on(x.device)


@functools.cache
def _run_on(device: torch.device) -> bool:
    """Whether kernels run on a GPU: one is tried, and if it does not, the reason is said once.

    Triton may be there and yet not work: it wants a GPU that it knows, and a C compiler for the little program that
    launches its kernels.
    """
    trouble = None
    if not available():
        trouble = "is not installed (pip install triton)"
    else:
        try:
            _try_kernel(device)
        except Exception as error:  # whatever it is, training and pictures can do without kernels
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            trouble = f"does not work on {device} ({reason})"
    if trouble is not None:
        warnings.warn(f"Triton {trouble}: PyTorch's own operations run in place of kernels, slower", stacklevel=3)
    return trouble is None


def _try_kernel(device: torch.device) -> None:
    from styleforge.ops.kernels import bias_act

    x = torch.ones(1, 1, device=device)
    y = bias_act.forward(x, None, None, None, slope=1.0, gain=1.0, clamp=None)
    needs = (True, False, False, False)
    bias_act.backward(x, y, None, None, None, slope=1.0, gain=1.0, clamp=None, needs=needs)
