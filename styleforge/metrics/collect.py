"""Long work in chunks: shared among processes, kept on disk, taken up again after a kill.

Work is done chunk by chunk, each a range of numbered samples; process r takes chunks r, r + W, r + 2W, …. What comes
out goes into sinks, which hold either sums (`MomentSink`, a fixed amount of memory) or rows in a file (`RowSink`).
Each sink knows on its own how far it is, so that one that is complete is never filled again.
"""
# Shapes: n rows of a chunk, F numbers per row.

from __future__ import annotations

import abc
import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from styleforge import dist
from styleforge.files import atomic_path
from styleforge.memory import out_of_memory
from styleforge.metrics.fid import Moments

CHUNK = 512
"""Samples of a chunk. It is no setting, since it is the order in which sums are taken, and so the last digit."""
SAVE_SEC = 60.0
"""Seconds of work between two savings."""

Work = Callable[[range, set[str]], Mapping[str, Tensor]]
"""(Numbers of samples, names of the outputs wanted) -> outputs by name, each [n, F]."""
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class Sink(abc.ABC):
    """Where one output goes.

    Args:
        output: Name of the output.
        kind: What is kept of it; with the others it names the sink's files.
        num: Samples that count: the first so many.
    """

    def __init__(self, output: str, kind: str, num: int) -> None:
        self.output, self.num = output, num
        self.name = f"{output}-{kind}{num}"
        self.done = 0
        """All of this process's samples below this number are in."""

    def is_begun(self, folder: Path) -> bool:
        """Whether a folder holds anything to load."""
        return (folder / f"{self.name}.safetensors").exists()

    def load(self, folder: Path) -> bool:
        """Takes up what a folder holds, or starts afresh; tells whether it is complete."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path, state = folder / f"{self.name}.safetensors", {}
        if path.exists():
            with contextlib.suppress(SafetensorError):  # damaged: the work is done again
                state = load_file(path)
        self.done = int(state.pop("done", torch.tensor(0)))
        if not self._restore(folder, state):
            self.done = 0
            path.unlink(missing_ok=True)  # it speaks of rows that are lost
        return self.done == self.num

    def save(self, folder: Path) -> None:
        """Writes how far the sink is; `load` takes it up.

        Raises:
            OSError: The file cannot be written; an older one stays.
        """
        from safetensors.torch import save_file

        tensors = {key: tensor.cpu().contiguous() for key, tensor in self._state(folder).items()}
        with atomic_path(folder / f"{self.name}.safetensors") as temporary:
            save_file(tensors | {"done": torch.tensor(self.done)}, temporary)

    def remove(self, folder: Path) -> None:
        """Removes the sink's files from a folder."""
        for suffix in (".safetensors", ".npy"):
            (folder / f"{self.name}{suffix}").unlink(missing_ok=True)

    def add(self, chunk: range, values: Tensor) -> None:
        """Takes values [n, F] of a chunk's samples, but for those that do not count."""
        if chunk.start < self.num:
            self._add(chunk.start, values[: self.num - chunk.start])
        self.done = min(chunk.stop, self.num)

    @abc.abstractmethod
    def gather(self, chunks: Sequence[range], device: torch.device) -> None:
        """Puts together what all processes have; rank 0 then has everything."""

    @abc.abstractmethod
    def _add(self, first: int, values: Tensor) -> None: ...

    @abc.abstractmethod
    def _state(self, folder: Path) -> dict[str, Tensor]: ...

    @abc.abstractmethod
    def _restore(self, folder: Path, state: dict[str, Tensor]) -> bool: ...


class MomentSink(Sink):
    """Count, mean and covariance of the first ``num`` samples.

    Args:
        output: Name of the output.
        num: How many samples count.
        width: F.
    """

    def __init__(self, output: str, num: int, width: int) -> None:
        super().__init__(output, "moments", num)
        self.width, self.moments = width, Moments(width)

    def gather(self, chunks: Sequence[range], device: torch.device) -> None:
        """Merges the sums of all processes, in the order of their ranks."""
        own, parts = self.moments.state_dict(), []
        for source in range(dist.world_size()):
            state = {key: dist.broadcast(own[key].clone(), source, device) for key in sorted(own)}
            parts.append(Moments.from_state(state))
        self.moments = parts[0]
        for part in parts[1:]:
            self.moments = self.moments.merge(part)

    def _add(self, first: int, values: Tensor) -> None:
        self.moments.add(values)

    def _state(self, folder: Path) -> dict[str, Tensor]:
        return self.moments.state_dict()

    def _restore(self, folder: Path, state: dict[str, Tensor]) -> bool:
        fits = bool(state) and len(state["mean"]) == self.width
        self.moments = Moments.from_state(state) if fits else Moments(self.width)
        return fits


class RowSink(Sink):
    """The rows of the first ``num`` samples, in a file.

    Args:
        output: Name of the output.
        num: How many samples are kept.
        width: F.
        dtype: Of the file.
    """

    def __init__(self, output: str, num: int, width: int, dtype: type[np.floating] = np.float32) -> None:
        super().__init__(output, "rows", num)
        self.width, self.dtype = width, dtype
        self.path: Path
        self.rows: np.memmap

    def gather(self, chunks: Sequence[range], device: torch.device) -> None:
        """Sends every process's rows to all."""
        for number, chunk in enumerate(chunks):
            rows = torch.from_numpy(self.rows[chunk.start : chunk.stop].copy())
            if len(rows):
                self.rows[chunk.start : chunk.stop] = dist.broadcast(rows, number % dist.world_size(), device).numpy()

    def _add(self, first: int, values: Tensor) -> None:
        self.rows[first : first + len(values)] = values.cpu().numpy()

    def _state(self, folder: Path) -> dict[str, Tensor]:
        self.rows.flush()
        if self.path.parent != folder:  # rank 0 has everything now
            self.path = self.path.replace(folder / self.path.name)
        return {}

    def _restore(self, folder: Path, state: dict[str, Tensor]) -> bool:
        self.path = folder / f"{self.name}.npy"
        shape = (self.num, self.width)
        if self.path.exists():
            with contextlib.suppress(ValueError):  # damaged: made again below
                rows = np.lib.format.open_memmap(self.path, mode="r+")
                if rows.shape == shape and rows.dtype == self.dtype:
                    self.rows = rows
                    return True
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = np.lib.format.open_memmap(self.path, mode="w+", dtype=self.dtype, shape=shape)
        self._take_room()
        return False

    def _take_room(self) -> None:
        """Takes all of the file's room on the disk now: running out later would kill the process without a word."""
        if not hasattr(os, "posix_fallocate"):  # as on Windows, where files take their room at once
            return
        with self.path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, self.path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    return  # a disk that knows no such thing
                megabytes = self.path.stat().st_size / 2**20
                self.path.unlink()
                raise OSError(
                    f"{self.path.parent}: got no room for {megabytes:.0f} MB of features, expected as much; make room, "
                    "or choose another place (STYLEFORGE_CACHE)"
                ) from error


def collect(
    work: Work, sinks: Sequence[Sink], folder: Path, device: torch.device, progress: Progress | None = None
) -> None:
    """Does the work that the sinks still need; on rank 0 they are then complete.

    Args:
        work: What to do with a chunk.
        sinks: Where the outputs go; each name once.
        folder: Where this very work keeps its files, finished or not. A later call finds there what is complete, and
            goes on with what is not.
        device: Where this process computes.
        progress: Called now and then with (done, total), on rank 0.

    Raises:
        ValueError: As the work does, on any rank.
        OSError: As the work does, or the folder cannot be written.
        MemoryError: As the work does.
    """
    rank, world_size = dist.rank(), dist.world_size()
    with dist.together():
        complete = [rank == 0 and sink.is_begun(folder) and sink.load(folder) for sink in sinks]
    missing = [sink for sink, done in zip(sinks, dist.broadcast_object(complete), strict=True) if not done]
    if not missing:
        return
    own = folder if world_size == 1 else folder / f"rank{rank}of{world_size}"
    num = max(sink.num for sink in missing)
    chunks = [range(first, min(first + CHUNK, num)) for first in range(0, num, CHUNK)]
    with dist.together():
        for sink in missing:
            sink.load(own)
        saved_time = time.perf_counter()
        for chunk in chunks[rank::world_size]:
            hungry = [sink for sink in missing if sink.done <= chunk.start < sink.num]
            if not hungry:
                continue
            try:
                outputs = work(chunk, {sink.output for sink in hungry})
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                raise MemoryError("memory ran out while measuring; take fewer pictures at a time (--batch)") from error
            for sink in hungry:
                sink.add(chunk, outputs[sink.output])
            if progress is not None and rank == 0:
                progress(chunk.stop, num)
            if time.perf_counter() - saved_time > SAVE_SEC:
                for sink in missing:
                    sink.save(own)
                saved_time = time.perf_counter()
    if world_size > 1:
        for sink in missing:
            sink.gather(chunks, device)
    with dist.together():
        for sink in missing:
            sink.done = sink.num
            if rank == 0:
                sink.save(folder)
        if own != folder:
            shutil.rmtree(own, ignore_errors=True)
