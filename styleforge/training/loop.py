"""The training loop: steps, ticks, snapshots, and a way out that loses nothing."""
# Shapes: N batch, C image channels or length of a label, H W image size.

from __future__ import annotations

import contextlib
import errno
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styleforge import dist
from styleforge.checkpoint import SUFFIX
from styleforge.clock import format_time, wait_for
from styleforge.data import ImageDataset, batches
from styleforge.files import append_line
from styleforge.images import from_uint8
from styleforge.memory import out_of_memory
from styleforge.networks import Generator, fade_images
from styleforge.precision import exact_float32
from styleforge.training import run_dir as files
from styleforge.training.console import Console, memory_gb
from styleforge.training.interrupts import Interrupts
from styleforge.training.phases import Losses, make_phases
from styleforge.training.schedule import batch_at, ema_decay_at, learning_rates_at, lod_at, resets_optimizers
from styleforge.training.state import TrainState, first_not_finite
from styleforge.training.stats import PhaseTimer, StatsLog, single
from styleforge.training.step import optimize, share_of

OnSnapshot = Callable[[Generator, int], Sequence[Mapping[str, Any]] | None]
"""Called on every rank with (G_ema, cur_nimg) after each checkpoint, for example to measure.

What it returns on rank 0 is appended to ``metric-<name>.jsonl``: objects with ``metric``, the name, and ``results``,
numbers by name. A `ValueError`, `OSError` or `MemoryError` that it raises is said, and training goes on: a metric is
not worth a run. Under ``torchrun`` all ranks must raise it, or none (see `styleforge.dist.together`).
"""


@dataclass(kw_only=True, slots=True)
class TrainResult:
    """How a session of training ended."""

    run_dir: Path
    """The run directory."""
    cur_nimg: int
    """Real images shown so far."""
    complete: bool = True
    """Whether training reached its end."""
    signum: int | None = None
    """The signal that asked this process to stop, if one did."""


class DivergedError(FloatingPointError):
    """A loss or a weight became infinite or not a number."""


class Loop:
    """The training loop over a state.

    Args:
        state: Where the run is; changed in place.
        dataset: Real images.
        run_dir: Where everything is written.
        console: Where a person reads.
        on_snapshot: Called after each checkpoint; see `OnSnapshot`.
        wandb_project: Project of Weights & Biases to log to; None for none.
        resumed: Whether the run directory holds earlier statistics.
        minutes: Time after which to stop as a signal would; None for no limit.
    """

    def __init__(
        self,
        state: TrainState,
        dataset: ImageDataset,
        run_dir: Path,
        console: Console,
        on_snapshot: OnSnapshot | None,
        wandb_project: str | None,
        *,
        resumed: bool,
        minutes: float | None = None,
    ) -> None:
        self.state, self.dataset, self.run_dir, self.console = state, dataset, run_dir, console
        self.config, self.device = state.config, state.device
        self.on_snapshot, self.minutes = on_snapshot, minutes
        self.start_time = time.perf_counter()
        self.rank, self.world_size = dist.rank(), dist.world_size()
        self.timer = PhaseTimer(self.device)
        self.copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.phases = make_phases(self.config, Losses(self.config, state.G, state.D, state.pl_mean))
        nimg = state.counters.cur_nimg if resumed else None
        self.log = StatsLog(run_dir, nimg, wandb_project) if self.rank == 0 else None
        self.grid = files.SampleGrid(dataset, state.G, seed=self.config.seed, cond=self.config.cond)

    # Data

    def _load(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of every step's real images, from where the run is."""
        return batches(
            self.dataset,
            batch_size=share_of(self.config, batch)[0],
            start=self.state.counters.cur_nimg,
            seed=self.config.seed,
            rank=self.rank,
            world_size=self.world_size,
            num_workers=self.config.workers,
        )

    # Steps

    def run(self) -> TrainResult:
        """Trains until the end or a signal."""
        try:
            with Interrupts() as interrupts, exact_float32():
                return self._run(interrupts)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise self._out_of_memory() from error
            if "DataLoader worker" in str(error):
                raise OSError(
                    f"a process that reads pictures died ({str(error).splitlines()[0]}), perhaps for want of shared "
                    f"memory; go on with {self._how_to_resume()} --workers 0"
                ) from error
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._disk_full(self.run_dir, error) from error
        finally:
            with contextlib.suppress(OSError):  # every line was flushed; a full disk has been said by then
                self.console.close()
                if self.log is not None:
                    self.log.close()

    def _run(self, interrupts: Interrupts) -> TrainResult:
        state, counters = self.state, self.state.counters
        total_nimg = round(self.config.total_kimg * 1000)
        if self.rank == 0 and counters.cur_nimg == 0:
            self.grid.save_reals(self.run_dir / "reals.png")
            self.grid.save_fakes(state.G_ema, self.run_dir / "fakes_init.png", lod_at(self.config, 0))
        loader, loaded_batch = None, 0
        session_start = tick_start = self.start_time = time.perf_counter()
        session_nimg = timed_nimg = counters.cur_nimg
        maintenance_sec, before_sec = 0.0, counters.train_sec
        while counters.cur_nimg < total_nimg:
            # One step.
            lod = lod_at(self.config, counters.cur_nimg)
            if counters.lod is not None and resets_optimizers(counters.lod, lod):
                state.reset_optimizers()
            counters.lod = lod
            state.set_learning_rates(*learning_rates_at(self.config, lod))
            batch = batch_at(self.config, lod)
            if loader is None or batch != loaded_batch:
                loader, loaded_batch = self._load(batch), batch
            self._step(*self._next(loader, lod), batch=batch, lod=lod)
            counters.cur_nimg += batch
            counters.batch_idx += 1
            state.update_ema(ema_decay_at(self.config, counters.cur_nimg, batch))
            done = counters.cur_nimg >= total_nimg
            tick_nimg = counters.cur_nimg - counters.tick_start_nimg
            ends_tick = done or counters.cur_tick == 0 or tick_nimg >= self.config.kimg_per_tick * 1000
            if ends_tick:
                wait_for(self.device)  # a GPU is steps behind, and a tick's time is that of its own steps
            now = time.perf_counter()
            counters.train_sec = before_sec + now - session_start
            speed = (counters.cur_nimg - session_nimg) / (now - session_start)
            self.console.progress(counters.cur_nimg, total_nimg, speed, "" if lod == 0 else f"lod {lod:.2f}")

            # Tick: a status line and statistics.
            out_of_time = self.minutes is not None and now - session_start > self.minutes * 60
            stopped = dist.any_rank(out_of_time or interrupts.signum is not None)
            snapshot = stopped or done
            if ends_tick:
                snapshot = snapshot or counters.cur_tick % self.config.snapshot_ticks == 0
                counters.cur_tick += 1
                counters.tick_start_nimg = counters.cur_nimg
                self._tick(lod, counters.cur_nimg - timed_nimg, now - tick_start, maintenance_sec)
                tick_start, timed_nimg, maintenance_sec = time.perf_counter(), counters.cur_nimg, 0.0

            # Snapshot: a checkpoint and pictures.
            if snapshot:
                snapshot_start = time.perf_counter()
                state.collector.reduce()
                if self.rank == 0:
                    self._snapshot(lod)
                if self.on_snapshot is not None and not stopped:  # not when asked to stop, since it may take long
                    self._measure(self.on_snapshot)
                maintenance_sec = time.perf_counter() - snapshot_start
                tick_start += maintenance_sec
            if stopped and not done:
                signum = interrupts.signum
                cause = (
                    "the time limit" if out_of_time else signal.Signals(signum).name if signum else "another process"
                )
                self.console.say(f"stopped by {cause} after saving; to go on: {self._how_to_resume()}")
                return TrainResult(run_dir=self.run_dir, cur_nimg=counters.cur_nimg, complete=False, signum=signum)
        self.console.say(f"done: {counters.cur_nimg / 1000:g} kimg in {format_time(counters.train_sec)}")
        return TrainResult(run_dir=self.run_dir, cur_nimg=counters.cur_nimg)

    def _next(self, loader: Iterator[tuple[Tensor, Tensor]], lod: float) -> tuple[Tensor, Tensor]:
        """Real images and labels; saves before it leaves when a picture is broken or cannot be read."""
        try:
            return next(loader)
        except (ValueError, OSError):
            if self.world_size == 1 and self.state.counters.batch_idx:  # else the other ranks are in a step
                self._snapshot(lod)
            raise

    def _step(self, real: Tensor, c: Tensor, *, batch: int, lod: float) -> None:
        """All phases that are due, on one batch of real images."""
        real, c = self._to_device(real, c)
        real = fade_images(from_uint8(real), lod)
        labels = c if self.config.cond else None
        for phase in self.phases:
            if self.state.counters.batch_idx % phase.interval == 0:
                start = self.timer.start()
                optimize(self.state, phase, real, labels, batch=batch, lod=lod)
                self.timer.stop(f"Timing/{phase.name}", start)

    def _to_device(self, *tensors: Tensor) -> list[Tensor]:
        """Copies; on CUDA on a stream of their own, beside what the step before has still to compute."""
        if self.copies is None:
            return [tensor.to(self.device) for tensor in tensors]
        with torch.cuda.stream(self.copies):
            there = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.copies)
        for tensor in there:
            tensor.record_stream(computing)
        return there

    # Ticks and snapshots

    def _tick(self, lod: float, tick_nimg: int, tick_sec: float, maintenance_sec: float) -> None:
        """Status line, statistics, and the check that everything is finite."""
        counters = self.state.counters
        stats: dict[str, dict[str, float]] = self.state.collector.summary()
        broken = first_not_finite(stats) or self.state.first_broken()
        if broken is not None:
            raise self._diverged(broken)
        stats |= self.timer.summary()
        cpu_gb, gpu_gb = memory_gb(self.device)
        sec_per_kimg = tick_sec / tick_nimg * 1000
        stats |= {
            "Progress/tick": single(counters.cur_tick),
            "Progress/kimg": single(counters.cur_nimg / 1000),
            "Progress/lod": single(lod),
            "Timing/total_sec": single(counters.train_sec),
            "Timing/sec_per_tick": single(tick_sec),
            "Timing/sec_per_kimg": single(sec_per_kimg),
            "Timing/maintenance_sec": single(maintenance_sec),
            "Resources/cpu_mem_gb": single(cpu_gb),
            "Resources/peak_gpu_mem_gb": single(gpu_gb),
        }
        if self.log is not None:
            self.log.write(stats, counters.cur_nimg)
        left = max(self.config.total_kimg - counters.cur_nimg / 1000, 0) * sec_per_kimg
        if self.minutes is not None:
            left = min(left, max(self.minutes * 60 - (time.perf_counter() - self.start_time), 0.0))
        self.console.say(
            f"tick {counters.cur_tick - 1:<5d} kimg {counters.cur_nimg / 1000:<9.1f} "
            f"time {format_time(counters.train_sec):<12s} left {format_time(left):<12s} sec/tick {tick_sec:<7.1f} "
            f"sec/kimg {sec_per_kimg:<7.2f} maintenance {maintenance_sec:<6.1f} cpumem {cpu_gb:<6.2f} "
            f"gpumem {gpu_gb:<6.2f} G {stats['Loss/G/loss']['mean']:<6.3f} D {stats['Loss/D/loss']['mean']:<6.3f}"
            + (f" lod {lod:.2f}" if self.config.growing else "")
        )

    def _snapshot(self, lod: float) -> None:
        """Checkpoint and pictures; the checkpoint first, since it is what must not be lost."""
        state = self.state
        kimg = state.counters.cur_nimg // 1000
        broken = state.first_broken()
        if broken is not None:
            raise self._diverged(broken)
        path = self.run_dir / f"network-snapshot-{kimg:06d}{SUFFIX}"
        try:
            state.save(path)
        except OSError as error:
            raise self._disk_full(path, error) from error
        files.prune(self.run_dir, self.config.keep, path)
        self.grid.save_fakes(state.G_ema, self.run_dir / f"fakes{kimg:06d}.png", lod)

    def _measure(self, on_snapshot: OnSnapshot) -> None:
        """Calls back, and keeps the numbers that come."""
        nimg = self.state.counters.cur_nimg
        try:
            lines = on_snapshot(self.state.G_ema, nimg)
        except dist.LostRankError:
            raise
        except (ValueError, OSError, MemoryError) as error:
            self.console.say(f"not measured: {error}; training goes on")
            return
        if self.log is None:
            return
        for line in lines or ():
            name = f"network-snapshot-{nimg // 1000:06d}{SUFFIX}"
            append_line(self.run_dir / f"metric-{line['metric']}.jsonl", {**line, "snapshot_pkl": name})
            self.log.write_metrics(line["results"], nimg)
            self.console.say("  ".join(f"{key} {value:.5g}" for key, value in line["results"].items()))

    # Ways out

    def _how_to_resume(self) -> str:
        return f"styleforge train --resume {self.run_dir}"

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"training diverged: {what} was not finite at {self.state.counters.cur_nimg / 1000:.1f} kimg; the last "
            f"checkpoint in {self.run_dir} is intact: start again from it (--init-from) with a higher --gamma, lower "
            "--glr and --dlr, or --precision fp32"
        )

    def _disk_full(self, path: Path, error: OSError) -> OSError:
        free = files.free_bytes(self.run_dir) / 2**20
        return OSError(
            f"{path}: could not be saved ({error}; {free:.0f} MB are free there); the last checkpoint is intact: make "
            f"room or keep fewer checkpoints (--keep), then go on with {self._how_to_resume()}"
        )

    def _out_of_memory(self) -> MemoryError:
        batch = batch_at(self.config, lod_at(self.config, self.state.counters.cur_nimg))
        share, at_a_time = share_of(self.config, batch)
        less = max((n for n in range(1, at_a_time // 2 + 1) if share % n == 0), default=None)
        way_out = f"go on with {self._how_to_resume()} --batch-gpu {less}, or " if less else ""
        return MemoryError(
            f"memory ran out with {at_a_time} images at a time; the last checkpoint in {self.run_dir} is intact: "
            f"{way_out}start with smaller --cbase or --cmax"
        )
