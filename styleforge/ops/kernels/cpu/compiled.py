"""How the kernels for CPUs are compiled, and that they run on the threads that PyTorch runs on.

Inner loops of `bias_act` run over channels and write to one place each, such that the compiler sees that what they read
is not what they write, and takes many channels at a time; the others say so themselves, by `vectors`.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

_MOST_THREADS: int = vars(numba.config)["NUMBA_NUM_THREADS"]
_ONE_AT_A_TIME = threading.Lock()
"""Numba's threads take work from one caller at a time; so many as there are, a second one would gain nothing."""
_STARTING = threading.Lock()
_started_in: int | None = None
"""The process that has started Numba's threads, or one that this one was forked from."""

# Sums may be taken in another order, to be taken many at a time; NaN and infinity stay what they are.
# Numba does not see that these have changed, nor that a part in another module has: `make clean-kernels` then.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}

part = numba.njit(**_OPTIONS)
"""Compiles what one turn of a kernel's loop does: by itself, since loops on several threads take long to compile."""


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compiles a function of NumPy arrays and numbers, its loops over `numba.prange` on all of PyTorch's threads.

    What was compiled is kept beside the module, or in the user's cache where that cannot be written.
    """
    without_keeping = functools.partial(numba.njit, function, parallel=True, **_OPTIONS)
    try:
        kernel = without_keeping(cache=True)
    except RuntimeError:  # there is no place to keep it
        kernel = without_keeping()

    @functools.wraps(function)
    def run(*arguments: Any) -> None:
        nonlocal kernel
        with _ONE_AT_A_TIME:
            numba.set_num_threads(min(torch.get_num_threads(), _MOST_THREADS))
            try:
                kernel(*arguments)
            except MemoryError:
                raise
            except Exception:  # what was kept cannot be read, or nothing more be written, and nothing was calculated
                kernel = without_keeping()
                kernel(*arguments)

    return run


def start_threads() -> None:
    """Starts Numba's threads, which are PyTorch's where both use the same OpenMP; once is enough.

    Raises:
        RuntimeError: Numba compiles nothing or finds no OpenMP here, or runs on other threads already, which would
            wait for PyTorch's and these for them, or this process was forked from one with threads.
    """
    global _started_in
    settings, threads = vars(numba.config), torch.get_num_threads()
    if settings["DISABLE_JIT"]:
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    with _STARTING:
        if _started_in not in (None, os.getpid()):
            raise RuntimeError("this process was forked from one that runs kernels: spawn it to have them here")
        _started_in = os.getpid()
        wanted_elsewhere, settings["THREADING_LAYER"] = settings["THREADING_LAYER"], "omp"
        probe = np.zeros(4, np.float32)
        try:
            _count_up(probe)
        except ValueError as error:  # Numba's "No threading layer could be loaded"
            raise RuntimeError("it finds no OpenMP: install libgomp1, or llvm-openmp on macOS") from error
        finally:
            settings["THREADING_LAYER"] = wanted_elsewhere
            torch.set_num_threads(threads)  # Numba has set OpenMP's number to that of the processors
    if numba.threading_layer() != "omp" or not probe.all():
        raise RuntimeError(f"its threads are of the kind {numba.threading_layer()!r}, expected OpenMP's")


@compiled
def _count_up(numbers: np.ndarray) -> None:
    for i in numba.prange(len(numbers)):
        numbers[i] += 1


def pixels_first(x: Tensor) -> np.ndarray:
    """The memory of an image [N, C, H, W], channels last, as [N, H, W, C]."""
    array: np.ndarray = x.detach().permute(0, 2, 3, 1).numpy()
    return array


def channels_last(x: Tensor) -> Tensor:
    """An image in channels-last layout; itself if it is."""
    return x.contiguous(memory_format=torch.channels_last)
