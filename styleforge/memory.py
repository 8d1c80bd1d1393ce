"""Memory: telling that it ran out, and keeping what was freed.

glibc gives large blocks back to the system at once and asks for them again, page by page, at the next step. For
programs that take and free large tensors all the time, on a CPU, that costs more than the arithmetic of small networks.
On other systems nothing is done about it.
"""

from __future__ import annotations

import ctypes
import sys

import torch

OUT_OF_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""What CUDA and MPS, CUDA's libraries, the CPU on Linux, and the CPU on Windows say when there is none left."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; PyTorch has a class for that on GPUs alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        phrase in str(error) for phrase in OUT_OF_MEMORY
    )


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to keep freed memory in this process.

    Returns:
        Whether it was told: False where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        settings = ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
        return all(bool(libc.mallopt(option, value)) for option, value in settings)
    except (OSError, AttributeError):
        return False
