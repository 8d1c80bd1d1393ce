"""How many images at a time fit into memory: ``--batch-gpu auto``.

All phases are tried on networks of their own, which are thrown away: nothing of a run is touched. On CUDA they run with
fewer and fewer images until memory suffices. CPUs do not refuse memory in time, so another process measures what one
image and two take, and the rest is a straight line.
"""
# Shapes: N batch, C image channels or length of a label, H W image size.

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from styleforge import dist
from styleforge.memory import available_memory, keep_freed_memory, out_of_memory, resident_memory
from styleforge.precision import exact_float32
from styleforge.training.config import TrainConfig
from styleforge.training.phases import Losses, make_phases
from styleforge.training.schedule import batch_at, lod_at
from styleforge.training.state import NETWORKS, TrainState
from styleforge.training.step import accumulate

HEADROOM = {"cuda": 0.1, "cpu": 0.2}
"""Share of the memory that is left to what a probe does not see: snapshots, metrics, fragments, other programs."""
_MEASURE = "from styleforge.training import probe; probe.measure_here()"
TOO_LARGE = (
    "memory does not suffice for one image at a time, expected room for one at least; take smaller --cbase or --cmax, "
    "or keep fewer activations (--checkpoint-from)"
)
_GB = 2**30


@dataclass(kw_only=True, slots=True)
class Choice:
    """How many images at a time, and why."""

    batch_gpu: int
    """Images at a time in each process."""
    reason: str
    """For people."""

    def describe(self) -> str:
        """One line for people."""
        return f"{self.batch_gpu} images at a time in each process (--batch-gpu auto): {self.reason}"


def choose_batch_gpu(config: TrainConfig, device: torch.device) -> Choice:
    """The largest number of images at a time that fits into memory; every rank gets the smallest of all ranks'.

    Args:
        config: The run's config; its ``batch_gpu`` does not matter.
        device: Where to train.

    Raises:
        ValueError: The batch cannot be divided among the processes.
        MemoryError: Not even one image fits, on any rank.
        LostRankError: Another process died.
    """
    sizes = list(possible_sizes(config))
    with dist.together():
        if device.type == "cuda":
            choice = largest_that_runs(config, device, sizes)
        elif device.type == "cpu":
            choice = _largest_by_estimate(config, sizes)
        else:
            reason = f"all of them, since no trial is made on {device.type}; lower it if memory runs out"
            choice = Choice(batch_gpu=sizes[0], reason=reason)
    least = next(size for size in sizes if not dist.any_rank(size > choice.batch_gpu))
    if least < choice.batch_gpu:
        choice = Choice(batch_gpu=least, reason="as many as fit in the process with the least memory")
    return choice


def _levels(config: TrainConfig) -> Iterator[tuple[float, int]]:
    """(lod, images of a step in this process) at each resolution, from the full one down; where it fades in, then."""
    first = math.floor(lod_at(config, 0))
    for halvings in range(first + 1):
        fades = config.growing is not None and config.growing.fade_kimg > 0 and halvings < first
        share, rest = divmod(batch_at(config, float(halvings)), dist.world_size())
        if rest:
            raise ValueError(
                f"batch: got {config.batch} for {dist.world_size()} processes, expected a multiple (--batch)"
            )
        yield halvings + 0.5 * fades, share


def possible_sizes(config: TrainConfig) -> Iterator[int]:
    """Numbers of images at a time, falling, that divide the share at every resolution that a run comes through."""
    shares = [share for _, share in _levels(config)]
    for size in range(max(shares), 0, -1):
        if all(share % min(size, share) == 0 for share in shares):
            yield size


def heaviest(config: TrainConfig, size: int) -> tuple[float, int, float]:
    """Where ``size`` images at a time take the most memory.

    An image of half the resolution takes at most half the memory: channels at most double from one to the next.

    Returns:
        (lod; images at a time there; as many images at full resolution take that much memory).
    """
    loads = [(lod, min(size, share), min(size, share) / 2 ** math.floor(lod)) for lod, share in _levels(config)]
    return max(loads, key=lambda load: load[2])


class Trial:
    """Networks like a run's, with gradients and optimizers as they are after some steps, to be thrown away.

    Args:
        config: The run's config.
        device: Where to train.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.state = TrainState(config, device)
        self.phases = make_phases(config, Losses(config, self.state.G, self.state.D, self.state.pl_mean))
        for name in NETWORKS:
            for parameter in self.state.network(name).parameters():
                parameter.grad = torch.zeros_like(parameter)
            self.state.optimizers[name].step()

    def run(self, num: int, share: int, lod: float) -> None:
        """Every phase with ``num`` images of a share, up to its gradients.

        Raises:
            MemoryError: It does not fit; so do some kinds of `RuntimeError`, see `out_of_memory`.
        """
        config, device = self.state.config, self.state.device
        real = torch.zeros(share, config.generator.img_channels, *config.generator.size, device=device)
        labels = torch.zeros(share, config.generator.c_dim, device=device) if config.cond else None
        for phase in self.phases:
            rows = range(min(num, max(share // phase.shrink, 1)))
            accumulate(self.state, phase, real, labels, rows, share=share, lod=lod)


@exact_float32()
def largest_that_runs(config: TrainConfig, device: torch.device, sizes: list[int]) -> Choice:
    """The first of the falling ``sizes`` at which all phases run without running out of memory.

    Raises:
        MemoryError: Not even the last one does.
    """
    shares = dict(_levels(config))
    tried = 0
    for size in sizes:
        lod, num, _ = heaviest(config, size)
        peak = _peak_of_trial(config, device, num, shares[lod], lod)
        _give_back(device)
        if peak is not None:
            taken = f"the steps take {peak / _GB:.1f} GB"
            return Choice(batch_gpu=size, reason=f"{taken}; {tried} do not fit" if tried else f"{taken}, all at once")
        tried = size
    raise MemoryError(TOO_LARGE)


def _peak_of_trial(config: TrainConfig, device: torch.device, num: int, share: int, lod: float) -> int | None:
    """Bytes on the GPU at most (0 on other devices); None if they do not fit, or leave too little room."""
    on_gpu = device.type == "cuda"
    room = 0
    if on_gpu:
        room = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Trial(config, device).run(num, share, lod)
        peak = torch.cuda.max_memory_allocated(device) if on_gpu else 0  # waits for nothing: the host allocates
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    return peak if peak <= room * (1 - HEADROOM["cuda"]) else None


def _give_back(device: torch.device) -> None:
    """Frees what a trial has left, once nothing refers to it any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


@dataclass(kw_only=True, slots=True)
class Growth:
    """By how much a process that trains grows."""

    one: int
    """Bytes with one image at a time."""
    two: int
    """Bytes with two."""

    def at(self, images: float) -> float:
        """Bytes with so many."""
        return self.one + max(self.two - self.one, 0) * (images - 1)


def _largest_by_estimate(config: TrainConfig, sizes: list[int]) -> Choice:
    """The first of the falling ``sizes`` that, going by one image and two, fits into the machine's memory."""
    room = available_memory()
    if room is None:
        return Choice(batch_gpu=sizes[0], reason="all of them, since this system does not say what memory it has left")
    room = room // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # which they share
    try:
        growth = measure_growth(config)
    except OSError as error:
        return Choice(batch_gpu=sizes[0], reason=f"all of them, since a trial could not be made ({error})")
    return by_estimate(config, sizes, growth, room)


def by_estimate(config: TrainConfig, sizes: list[int], growth: Growth, room: int) -> Choice:
    """The first of the falling ``sizes`` whose memory lies below ``room`` bytes, less some head-room.

    Raises:
        MemoryError: Not even the last one's does.
    """
    limit = room * (1 - HEADROOM["cpu"])
    for size in sizes:
        needed = growth.at(heaviest(config, size)[2])
        if needed <= limit:
            reason = f"about {needed / _GB:.1f} of the {room / _GB:.1f} GB that are free"
            return Choice(batch_gpu=size, reason=reason)
    raise MemoryError(f"{TOO_LARGE} (about {growth.at(1) / _GB:.1f} GB are needed, {room / _GB:.1f} are free)")


def measure_growth(config: TrainConfig) -> Growth:
    """Trains with one image and two at a time in a process of its own, which gives back what it took.

    Raises:
        MemoryError: That process ran out of memory.
        OSError: It could not run, or not measure.
    """
    # What it needs beyond its own start, a run needs, too.
    paths = os.pathsep.join(path for path in sys.path if path)  # it must find what this process has found
    request = json.dumps({"config": config.to_dict(), "threads": torch.get_num_threads()})
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE],
        input=request,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore"},
    )
    peaks = [int(line) for line in done.stdout.split()]
    if done.returncode == 0:
        return Growth(one=peaks[0], two=peaks[1])
    problem = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    killed = done.returncode == -signal.SIGKILL  # which is how Linux refuses memory
    if not (killed or "MemoryError" in problem or out_of_memory(OSError(problem))):
        raise OSError(problem)
    if not peaks:
        raise MemoryError(TOO_LARGE)
    return Growth(one=peaks[0], two=sys.maxsize)


def measure_here() -> None:
    """What `measure_growth` has another process do: reads its request, and prints by how many bytes it grows.

    Raises:
        OSError: This system does not tell a process its memory.
    """
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    config = TrainConfig.from_dict(request["config"])
    keep_freed_memory()  # as in training
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of starting
    before = resident_memory()
    with exact_float32():
        trial = Trial(config, torch.device("cpu"))
        lod, *_ = heaviest(config, 1)
        for num in (1, 2):
            # A share so large that each phase sees so many: the path length penalty's is smaller than the others'.
            trial.run(num, num * max(phase.shrink for phase in trial.phases), lod)
            peak = resident_memory(peak=True)
            if before is None or peak is None:
                raise OSError("this system does not tell a process its memory")
            print(peak - before, flush=True)
