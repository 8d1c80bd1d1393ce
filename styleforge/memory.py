"""Memory: telling that it ran out, how much there is, and keeping what was freed.

glibc gives large blocks back to the system at once and asks for them again, page by page, at the next step. For
programs that take and free large tensors all the time, on a CPU, that costs more than the arithmetic of small networks.
On other systems nothing is done about it.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path

import torch

OUT_OF_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""What CUDA and MPS, CUDA's libraries, the CPU on Linux, and the CPU on Windows say when there is none left."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; PyTorch has a class for that on GPUs alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        phrase in str(error) for phrase in OUT_OF_MEMORY
    )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take without swapping, in its machine and its container; None if unknown.

    Args:
        root: Where ``proc`` and ``sys`` are; they are on Linux alone.
    """
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    except OSError:
        return None
    left = [int(found[1]) * 1024] if found else []
    groups = root / "sys/fs/cgroup"
    own = None
    with contextlib.suppress(OSError):
        own = re.search(r"^0::(/.*)$", (root / "proc/self/cgroup").read_text(), re.M)
    path = Path(own[1].lstrip("/") if own else "")
    for folder in (path, *path.parents):  # each one's limit holds for what is in it
        left += _left_in(groups / folder, "memory.max", "memory.current", "inactive_file")
    left += _left_in(groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return max(min(left), 0) if left else None


def _left_in(group: Path, limit: str, usage: str, cache: str) -> list[int]:
    """What a control group leaves, if it has a limit: cached files count as used there, but make room."""
    with contextlib.suppress(OSError, ValueError):  # no such group, or no limit: "max"
        bound, used = (int((group / name).read_text()) for name in (limit, usage))
        found = re.search(rf"^{cache} (\d+)$", (group / "memory.stat").read_text(), re.M)
        return [bound - used + (int(found[1]) if found else 0)]
    return []


def resident_memory(*, peak: bool = False) -> int | None:
    """Bytes of memory that this process has, or has had at most; None where ``/proc`` does not say."""
    with contextlib.suppress(OSError):
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else None
    return None


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
