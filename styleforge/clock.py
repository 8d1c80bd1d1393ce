"""Durations: as people read them, and what must end before one is taken."""

from __future__ import annotations

import torch


def format_time(seconds: float) -> str:
    """Seconds as ``1d 02h 03m``, ``2h 03m 04s``, ``3m 04s`` or ``4s``."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    if s < 60 * 60:
        return f"{s // 60}m {s % 60:02}s"
    if s < 24 * 60 * 60:
        return f"{s // 3600}h {s // 60 % 60:02}m {s % 60:02}s"
    return f"{s // 86400}d {s // 3600 % 24:02}h {s // 60 % 60:02}m"


def wait_for(device: torch.device) -> None:
    """Waits until a device has computed all that it was asked for; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
