"""Kernels behind the ops: the same functions, compiled on first use, with no toolkit and no compiler to install.

`gpu` holds those in Triton, `cpu` those in Numba. Each module stands beside a reference of `styleforge.ops` that it
equals. They import Triton or Numba at their top, so import them inside functions, after `uses_triton`, `uses_numba` or
`takes_numba` has said that they are wanted.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor
from torch._C import _functorch

MIN_CHANNELS = 16
"""From so many channels on a kernel on CPUs is worth its call: it handles the channels of a pixel together, …"""
MIN_NUMBERS = 1 << 16
"""… and so many numbers of an image. How many images there are must not choose the way."""


@functools.cache
def available(package: str = "triton") -> bool:
    """Whether Triton, or Numba, is installed. It imports neither, and it says nothing about a GPU being there."""
    return importlib.util.find_spec(package) is not None


Impl = Literal["auto", "triton", "torch"]
"""How an op runs: by its kernel for GPUs, by PyTorch's own operations, or by what suits the device."""


def uses_triton(x: Tensor, impl: Impl) -> bool:
    """Whether an op on ``x`` runs by its kernel for GPUs: ``auto`` takes it on CUDA, where Triton works."""
    if impl not in get_args(Impl):
        raise ValueError(f"impl: got {impl!r}, expected one of {', '.join(get_args(Impl))}; 'auto' always works")
    if impl != "auto" or not x.is_cuda or torch.compiler.is_compiling():
        return impl == "triton"
    return _run_on(x.device, os.getpid())


def uses_numba(x: Tensor, *others: Tensor | None) -> bool:
    """Whether an op on ``x`` and others runs by its kernel for CPUs.

    It does for images [N, C, H, W] in channels-last layout that are large enough to gain by it, where Numba works.
    """
    if _is_watched() or x.ndim != 4 or x.shape[1] < MIN_CHANNELS or x.shape[1:].numel() < MIN_NUMBERS:
        return False
    return takes_numba(x, *others) and x.is_contiguous(memory_format=torch.channels_last)


def takes_numba(x: Tensor, *others: Tensor | None) -> bool:
    """Whether kernels for CPUs can take these tensors, of which the first is an image, and Numba works."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or _is_watched():
        return False
    return all(map(_is_plain, (x, *others))) and _run_on(x.device, os.getpid())


def _is_watched() -> bool:
    """Whether somebody takes down PyTorch's operations, among whom a kernel for CPUs would be missing."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return tracing or torch._C._len_torch_dispatch_stack() > 0


def _is_plain(x: Tensor | None) -> bool:
    """Whether a tensor is what it seems: numbers in memory, not a stand-in of torch.func or a subclass."""
    if x is None:
        return True
    stand_in = _functorch.is_functorch_wrapped_tensor(x) or _functorch.is_legacy_batchedtensor(x)
    return type(x) in (Tensor, torch.nn.Parameter) and not stand_in and not x.is_neg()


@functools.cache
def _run_on(device: torch.device, process: int) -> bool:
    """Whether kernels run on a device, in this process: one is tried, and if it does not, the reason is said once.

    Triton may be there and yet not work: it wants a GPU that it knows, and a C compiler for the little program that
    launches its kernels. Numba wants OpenMP's threads, which a process forked from one with them does not have.
    """
    name, package = ("Triton", "triton") if device.type == "cuda" else ("Numba", "numba")
    trouble = None
    if not available(package):
        trouble = f"is not installed (pip install {package})"
    else:
        try:
            _try_kernel(device)
        except Exception as error:  # whatever it is, training and pictures can do without kernels
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            trouble = f"does not work on {device} ({reason})"
    if trouble is not None:
        warnings.warn(f"{name} {trouble}: PyTorch's own operations run in place of kernels, slower", stacklevel=3)
    return trouble is None


def _try_kernel(device: torch.device) -> None:
    if device.type == "cpu":
        from styleforge.ops.kernels.cpu.compiled import start_threads

        start_threads()
        return
    from styleforge.ops.kernels.gpu import bias_act

    x = torch.ones(1, 1, device=device)
    y = bias_act.forward(x, None, None, None, slope=1.0, gain=1.0, clamp=None)
    needs = (True, False, False, False)
    bias_act.backward(x, y, None, None, None, slope=1.0, gain=1.0, clamp=None, needs=needs)
