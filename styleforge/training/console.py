"""What a person sees while training: a status line per tick, kept in ``log.txt`` too, and a live line in between."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TextIO

import torch

from styleforge import dist
from styleforge.clock import format_time


def memory_gb(device: torch.device) -> tuple[float, float]:
    """(peak memory of this process, peak memory on the GPU since the last call) in GB; 0 where it is not known."""
    cpu = gpu = 0.0
    with contextlib.suppress(ImportError):  # Windows has no such module
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    if device.type == "cuda":
        gpu = torch.cuda.max_memory_allocated(device) / 2**30
        torch.cuda.reset_peak_memory_stats(device)
    return cpu, gpu


class Console:
    """Prints on rank 0 alone; every line goes to the log too.

    Args:
        log_path: Log file, appended to; None for no log.
        quiet: Print nothing, as in tests.
    """

    def __init__(self, log_path: Path | None = None, quiet: bool = False) -> None:
        self.quiet = quiet or dist.rank() != 0
        self.log: TextIO | None = log_path.open("a", encoding="utf-8") if log_path and dist.rank() == 0 else None
        self.live = not self.quiet and sys.stderr.isatty()
        self.live_time = 0.0
        self.live_width = 0

    def say(self, line: str) -> None:
        """Prints a line and logs it."""
        self._clear()
        if not self.quiet:
            print(line, flush=True)
        if self.log is not None:
            self.log.write(line + "\n")
            self.log.flush()

    def progress(self, cur_nimg: int, total_nimg: int, images_per_sec: float, loss: str) -> None:
        """Rewrites the live line on a terminal, at most four times a second."""
        if not self.live or time.perf_counter() - self.live_time < 0.25:
            return
        self.live_time = time.perf_counter()
        left = (total_nimg - cur_nimg) / images_per_sec if images_per_sec > 0 else 0.0
        share = min(cur_nimg / total_nimg, 1.0)
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        text = f"{bar} {cur_nimg / 1000:.1f}/{total_nimg / 1000:g} kimg  {images_per_sec:.1f} img/s  "
        text += f"{format_time(left)} left  {loss}"
        sys.stderr.write("\r" + text.ljust(self.live_width))
        sys.stderr.flush()
        self.live_width = len(text)

    def _clear(self) -> None:
        if self.live and self.live_width:
            sys.stderr.write("\r" + " " * self.live_width + "\r")
            sys.stderr.flush()
            self.live_width = 0

    def close(self) -> None:
        """Ends the live line and closes the log."""
        self._clear()
        if self.log is not None:
            self.log.close()
