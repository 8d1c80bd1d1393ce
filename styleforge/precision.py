"""What float32 means: on GPUs PyTorch rounds it to 10 bits of fraction where that is quicker, unless it is told not to.

Everything that trains, makes or measures pictures does so in float32 proper, as the official release does: the same
seed then shows the same picture on every machine, and a metric has the same digits. Speed comes from bf16 and fp16,
which are chosen by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Keeps GPUs from rounding float32 to TensorFloat-32, in a ``with`` block or a decorated function.

    On other devices, and for other types, nothing changes.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    switches: list[tuple[Any, str, Any]]
    if hasattr(cudnn, "conv"):
        switches = [(cudnn.conv, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee")]
    else:  # PyTorch before 2.9
        switches = [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, exact in switches:
            setattr(owner, name, exact)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
