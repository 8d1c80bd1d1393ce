"""Statistics of training: collected on the device, written as one JSON object per tick."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styleforge import dist
from styleforge.files import atomic_path


class Collector:
    """Count, sum and sum of squares of everything reported since the last tick.

    Args:
        device: Where values are reported from; sums stay there until they are read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.moments: dict[str, Tensor] = {}

    def report(self, name: str, values: Tensor) -> None:
        """Adds values of any shape under a name."""
        values = values.detach().flatten().to(self.dtype)
        num = values.new_full((), values.numel())  # filled there: a copy would wait for the GPU
        moments = torch.stack([num, values.sum(), values.square().sum()])
        self.moments[name] = self.moments[name] + moments if name in self.moments else moments

    def reduce(self) -> None:
        """Gives every rank the mean over all ranks. Every rank must call it."""
        dist.all_reduce_mean(self.moments[name] for name in sorted(self.moments))

    def summary(self) -> dict[str, dict[str, float]]:
        """Name -> {num, mean, std} over all ranks; empties the collector. Every rank must call it."""
        self.reduce()
        result = {}
        for name in sorted(self.moments):
            num, total, squares = self.moments[name].tolist()
            mean = total / num
            variance = max(squares / num - mean * mean, 0.0)
            result[name] = {"num": round(num * dist.world_size()), "mean": mean, "std": variance**0.5}
        self.moments = {}
        return result


class PhaseTimer:
    """Seconds spent in each phase; on CUDA measured by events, so that nothing waits.

    Args:
        device: Where the phases compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.events: list[tuple[str, Any, Any]] = []

    def start(self) -> Any:
        """A mark in time."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def stop(self, name: str, start: Any) -> None:
        """Adds the time since a mark to a phase."""
        self.events.append((name, start, self.start()))

    def summary(self) -> dict[str, dict[str, float]]:
        """Name -> {num, mean, std} in seconds; empties the timer."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, list[float]] = {}
        for name, start, end in self.events:
            seconds.setdefault(name, []).append(start.elapsed_time(end) / 1000 if self.cuda else end - start)
        self.events = []
        return {name: _moments(values) for name, values in seconds.items()}


def _moments(values: list[float]) -> dict[str, float]:
    mean = sum(values) / len(values)
    return {"num": len(values), "mean": mean, "std": (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5}


def single(value: float) -> dict[str, float]:
    """One number in the form of the others."""
    return {"num": 1, "mean": value, "std": 0.0}


class StatsLog:
    """``stats.jsonl`` of a run directory, and TensorBoard and Weights & Biases where they are there.

    Args:
        run_dir: The run directory.
        resume_nimg: Images at which the run goes on: lines beyond, which a killed run wrote after its last
            checkpoint, are taken back. None for a new run.
        wandb_project: Project to log to; None for no Weights & Biases.
    """

    def __init__(self, run_dir: Path, resume_nimg: int | None = None, wandb_project: str | None = None) -> None:
        self.path = run_dir / "stats.jsonl"
        if resume_nimg is not None and self.path.exists():
            self._take_back(resume_nimg)
        self.file = self.path.open("a", encoding="utf-8")
        self.tensorboard: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            purge_step = None if resume_nimg is None else resume_nimg + 1  # the first step to be taken back
            self.tensorboard = SummaryWriter(str(run_dir), purge_step=purge_step)
        except ImportError:
            pass  # TensorBoard is not installed: stats.jsonl has everything.
        self.wandb: Any = None
        if wandb_project is not None:
            self.wandb = _start_wandb(wandb_project, run_dir)

    def _take_back(self, resume_nimg: int) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _nimg_of(line) <= resume_nimg]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, stats: dict[str, dict[str, float]], cur_nimg: int) -> None:
        """Appends one tick."""
        self.file.write(json.dumps({**stats, "cur_nimg": cur_nimg, "timestamp": time.time()}) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        if self.tensorboard is not None:
            for name, value in stats.items():
                self.tensorboard.add_scalar(name, value["mean"], global_step=cur_nimg)
            self.tensorboard.flush()
        if self.wandb is not None:
            self.wandb.log({name: value["mean"] for name, value in stats.items()}, step=cur_nimg)

    def write_metrics(self, results: Mapping[str, float], cur_nimg: int) -> None:
        """Shows metrics in TensorBoard and Weights & Biases; their file is ``metric-<name>.jsonl``."""
        values = {f"Metrics/{name}": value for name, value in results.items()}
        if self.tensorboard is not None:
            for name, value in values.items():
                self.tensorboard.add_scalar(name, value, global_step=cur_nimg)
            self.tensorboard.flush()
        if self.wandb is not None:
            self.wandb.log(values, step=cur_nimg)

    def close(self) -> None:
        """Closes files and connections."""
        self.file.close()
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()


def _nimg_of(line: str) -> float:
    try:
        return float(json.loads(line)["cur_nimg"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that a crash cut off


def _start_wandb(project: str, run_dir: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "--wandb: Weights & Biases is not installed; run pip install wandb, or leave it out"
        ) from error
    return wandb.init(project=project, name=run_dir.name, dir=str(run_dir), resume="allow")


def read_stats(run_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's ``stats.jsonl``, in order; a last one that a crash cut off is left out.

    Raises:
        ValueError: There is no complete line.
        OSError: There is no such file.
    """
    path = Path(run_dir) / "stats.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file, expected a run directory of styleforge train")
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if _nimg_of(line) < float("inf"):
            lines.append(json.loads(line))
    if not lines:
        raise ValueError(f"{path}: got no complete line, expected one per tick; let the run reach its first tick")
    return lines
