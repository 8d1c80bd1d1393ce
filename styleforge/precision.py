"""Float types: what float32 means, and where bfloat16 is quicker.

On GPUs PyTorch rounds float32 to 10 bits of fraction where that is quicker, unless it is told not to.

Everything that trains, makes or measures pictures does so in float32 proper, as the official release does: the same
seed then shows the same picture on every machine, and a metric has the same digits. Speed comes from bf16 and fp16,
which are chosen by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_BF16_OF_CPUS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""Arithmetic for bfloat16 on x86 and ARM, by PyTorch's names."""


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has arithmetic for bfloat16; others make it of float32, which takes longer.

    Older versions of PyTorch do not tell of CPUs, and none of MPS: False, too.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        return any(torch.cpu.get_capabilities().get(name, False) for name in _BF16_OF_CPUS)
    return False


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Keeps GPUs from rounding float32 to TensorFloat-32, in a ``with`` block or a decorated function.

    On other devices, and for other types, nothing changes.
    """
    with contextlib.ExitStack() as undo:
        for switch in (_convolutions, _products):
            undo.enter_context(switch())
        yield


# PyTorch 2.9 has a second way to set this, and reading one way after setting the other is an error: both ways must
# be read and set as whoever came before has done.


@contextlib.contextmanager
def _convolutions() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:
        with _set(cudnn.conv), _set(cudnn.rnn):
            yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


@contextlib.contextmanager
def _products() -> Iterator[None]:
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        with _set(torch.backends.cuda.matmul):
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _set(owner: Any) -> Iterator[None]:
    before, owner.fp32_precision = owner.fp32_precision, "ieee"
    try:
        yield
    finally:
        owner.fp32_precision = before
