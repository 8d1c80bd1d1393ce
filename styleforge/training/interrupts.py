"""Signals that ask to stop."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType
from typing import Any


class Interrupts:
    """Notes SIGINT and SIGTERM, for a ``with`` block, so that the loop can save before it leaves."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == self.signum == signal.SIGINT:
            raise KeyboardInterrupt  # Ctrl-C twice is meant at once; launchers may send SIGTERM after it or again
        self.signum = signum

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: whoever runs us handles signals
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
