"""Speed: seconds of each kind of work of a preset, as a share of what this machine's convolutions can do.

Seconds alone say nothing about an implementation: they depend on the machine, and on what else it does. So the rate
of one plain convolution, 512 to 512 channels, 3×3, at 64², is measured in the same minutes, and every work's
floating-point operations per second are divided by it. Operations are those of the mathematics (a multiplication and
an addition are two), not those that an implementation may add.
"""
# Shapes: N batch, C image channels or length of a label.

from __future__ import annotations

import dataclasses
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from styleforge import checkpoint, dist
from styleforge.clock import wait_for
from styleforge.data import ImageDataset, batches
from styleforge.data.pack import pack
from styleforge.data.portraits import write_portraits
from styleforge.images import from_uint8
from styleforge.memory import keep_freed_memory
from styleforge.precision import exact_float32
from styleforge.training import TrainConfig
from styleforge.training.console import memory_gb
from styleforge.training.draws import Draws
from styleforge.training.phases import Batch, Losses, Phase, make_phases
from styleforge.training.state import NETWORKS, TrainState
from styleforge.training.step import optimize, share_of

WORKS = {"inference": "", "g_step": "Gmain", "d_step": "Dmain", "r1": "Dreg", "path_length": "Greg"}
"""Name of a work -> the training phase that it is; inference is none."""

_SEC_ON_END = 1.0
"""A work that is shorter is done for so many seconds at a time."""
_PEAK_BATCH, _PEAK_CHANNELS, _PEAK_SIZE = 4, 512, 64
_PEAK_GFLOP = 2 * 9 * _PEAK_CHANNELS**2 * _PEAK_SIZE**2 * _PEAK_BATCH / 1e9


@dataclass(kw_only=True, slots=True)
class Timing:
    """One kind of work, on a whole batch."""

    images: int
    """Images that it works on."""
    seconds: float
    """Median duration."""
    gflop: float
    """Its floating-point operations in 10^9."""
    share_of_peak: float
    """Its rate as a share of the rate of a plain convolution."""


@dataclass(kw_only=True, slots=True)
class SpeedReport:
    """How fast a machine runs a preset."""

    works: dict[str, Timing]
    """The keys of `WORKS`; ``path_length`` on a batch that is smaller by ``pl_batch_shrink``."""
    train_img_per_sec: float
    """Images per second of training: all phases at their intervals, optimizers and average, without loading."""
    peak_conv_gflops: float
    """10^9 operations per second of the plain convolution in the better memory layout."""
    peak_memory_gb: float
    """Peak memory of the process, or on CUDA of the device, in GB as the status line of training counts them."""
    loader_img_per_sec: float
    """Images per second that the data loader reads, decodes and shuffles from a zip of PNGs."""
    checkpoint_sec: float
    """Seconds to write a checkpoint of a run."""
    startup_sec: float
    """Seconds until a fresh process could begin to train."""
    device: str
    """Where it ran."""
    dtype: str
    """Float type of the features."""
    batch: int
    """Images at a time."""


def measure_speed(
    config: TrainConfig, *, repeats: int = 5, progress: Callable[[int, int], None] | None = None
) -> SpeedReport:
    """Times inference and the training phases of a config.

    Everything is done once to warm up, then ``repeats`` times in turn, each time between two plain convolutions: its
    share is of what the machine could do in that moment, even if other work slows it. Short works are done several
    times on end, as in training, where caches hold what the step before has left.

    Args:
        config: The preset; its data are not used. Regularisers that it does without are timed all the same, but do
            not count in the training rate.
        repeats: Over so many durations medians are taken.
        progress: Called with (rounds done, all rounds).

    Raises:
        ValueError: The batch cannot be divided, or the device has not this float type.
        MemoryError: Memory ran out.
    """
    share_of(config, config.batch)
    keep_freed_memory()
    device = dist.pick_device(config.device)
    state = TrainState(config, device)
    phases = _phases(config, Losses(config, state.G, state.D, state.pl_mean))
    dtype = state.D.compute_dtype or torch.float32
    real = from_uint8(torch.randint(256, (config.batch, state.G.img_channels, *state.G.config.size), dtype=torch.uint8))
    real, labels = real.to(device), _labels(config, device)
    z = torch.randn(config.batch, state.G.z_dim, device=device)

    works: dict[str, Callable[[], object]] = {
        name: partial(optimize, state, phase, real, labels, batch=config.batch, lod=0.0)
        for name, phase in phases.items()
    }
    works["inference"] = torch.no_grad()(lambda: state.G_ema(z, labels, noise_mode="const"))
    works["ema"] = lambda: state.update_ema(0.999)
    plain = _plain_convolutions(device, dtype)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    beside: dict[str, list[float]] = {name: [] for name in works}
    with exact_float32():
        for convolution in plain:
            convolution()
        on_end = {name: _times_on_end(work, device) for name, work in works.items()}
        for i in range(repeats):
            for name, work in works.items():
                before = min(_seconds(convolution, device) for convolution in plain)
                seconds[name].append(_seconds(work, device, on_end[name]))
                after = min(_seconds(convolution, device) for convolution in plain)
                beside[name].append((before + after) / 2)
            state.collector.summary()
            if progress is not None:
                progress(i + 1, repeats)

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    gflop = count_gflop(config)

    def timing(work: str, name: str) -> Timing:
        pairs = zip(seconds[name], beside[name], strict=True)
        shares = [gflop[work] / own / (_PEAK_GFLOP / plain_sec) for own, plain_sec in pairs]
        return Timing(
            images=max(config.batch // getattr(phases.get(name), "shrink", 1), 1),
            seconds=medians[name],
            gflop=gflop[work],
            share_of_peak=statistics.median(shares),
        )

    timings = {work: timing(work, phase or work) for work, phase in WORKS.items()}
    trained = make_phases(config, Losses(config, state.G, state.D, state.pl_mean))
    step = medians["ema"] + sum(medians[phase.name] / phase.interval for phase in trained)
    cpu_gb, gpu_gb = memory_gb(device)
    return SpeedReport(
        works=timings,
        train_img_per_sec=config.batch / step,
        peak_conv_gflops=_PEAK_GFLOP / statistics.median(itertools.chain(*beside.values())),
        peak_memory_gb=gpu_gb if device.type == "cuda" else cpu_gb,
        loader_img_per_sec=_loader_rate(config),
        checkpoint_sec=_checkpoint_seconds(state),
        startup_sec=_startup_seconds(),
        device=_device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        batch=config.batch,
    )


def count_gflop(config: TrainConfig) -> dict[str, float]:
    """The floating-point operations of each of `WORKS` on one batch, in 10^9; nothing is computed for it.

    Counted are convolutions and matrix products, forward and backward; they are nearly everything.
    """
    device = torch.device("meta")
    state = TrainState(dataclasses.replace(config, precision="fp32"), device)
    G, D, N = state.G, state.D, config.batch
    phases = _phases(config, Losses(config, G, D, state.pl_mean))
    image = (G.img_channels, *G.config.size)
    labels = _labels(config, device)

    def count(work: Callable[[], object]) -> float:
        with _Operations() as operations:
            work()
        return operations.total / 1e9

    def run(phase: Phase) -> None:
        n = max(N // phase.shrink, 1)
        draws = Draws(
            z=torch.empty(2, n, G.z_dim, device=device),
            mix=torch.empty(n, device=device),
            crossover=torch.empty(n, device=device),
            noise=[torch.empty(n, 1, *noise.const.shape, device=device) for noise in G.synthesis.noise_inputs()],
            y=torch.empty(n, *image, device=device),
        )
        for name in NETWORKS:
            state.network(name).requires_grad_(name == phase.network)
        c = None if labels is None else labels[:n]
        real = torch.empty(n, *image, device=device)
        phase.loss(Batch(real=real, c=c, draws=draws, lod=0.0), lambda name, value: None).sum().backward()

    z = torch.empty(N, G.z_dim, device=device)
    gflop = {"inference": count(torch.no_grad()(lambda: state.G_ema(z, labels, noise_mode="const")))}
    return gflop | {work: count(partial(run, phases[phase])) for work, phase in WORKS.items() if phase}


class _Operations(TorchDispatchMode):
    """Adds up floating-point operations; PyTorch's own `FlopCounterMode` does not stand a gradient within a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _phases(config: TrainConfig, losses: Losses) -> dict[str, Phase]:
    """The phases of `WORKS` by name, whatever the config does without, and those of the config itself."""
    every = dataclasses.replace(
        config,
        gamma=config.gamma or 1.0,
        r1_interval=config.r1_interval or 16,
        pl_weight=config.pl_weight or 2.0,
        pl_interval=config.pl_interval or 4,
    )
    return {phase.name: phase for phase in (*make_phases(every, losses), *make_phases(config, losses))}


def _labels(config: TrainConfig, device: torch.device) -> Tensor | None:
    c_dim = config.generator.c_dim
    return torch.eye(c_dim, device=device)[torch.arange(config.batch, device=device) % c_dim] if c_dim else None


def _plain_convolutions(device: torch.device, dtype: torch.dtype) -> list[Callable[[], Tensor]]:
    """The plain convolution, in each memory layout."""

    def convolution(layout: torch.memory_format) -> Callable[[], Tensor]:
        x = torch.randn(_PEAK_BATCH, _PEAK_CHANNELS, _PEAK_SIZE, _PEAK_SIZE, device=device)
        weight = torch.randn(_PEAK_CHANNELS, _PEAK_CHANNELS, 3, 3, device=device)
        x, weight = x.to(dtype, memory_format=layout), weight.to(dtype, memory_format=layout)
        return lambda: F.conv2d(x, weight, padding=1)

    return [convolution(torch.channels_last), convolution(torch.contiguous_format)]


def _times_on_end(work: Callable[[], object], device: torch.device) -> int:
    """How often a work is done to fill `_SEC_ON_END`; the first time warms up."""
    seconds = _seconds(work, device)
    if seconds < _SEC_ON_END:
        seconds = _seconds(work, device)
    return max(round(_SEC_ON_END / seconds), 1)


def _seconds(work: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Mean duration of a work that is done several times on end."""
    wait_for(device)
    start_time = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(device)
    return (time.perf_counter() - start_time) / times


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _loader_rate(config: TrainConfig, num: int = 256) -> float:
    """Images per second of the data loader on portraits of the config's size, once its processes run."""
    with tempfile.TemporaryDirectory() as folder:
        drawn, path = Path(folder) / "portraits.zip", Path(folder) / "resized.zip"
        write_portraits(drawn, resolution=64, num=32)
        pack(drawn, path, resolution=config.generator.size)
        dataset = ImageDataset(path)
        loader = batches(dataset, batch_size=config.batch, num_workers=config.workers)
        next(loader)
        start_time = time.perf_counter()
        for _ in range(-(-num // config.batch)):
            next(loader)
        return -(-num // config.batch) * config.batch / (time.perf_counter() - start_time)


def _checkpoint_seconds(state: TrainState) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start_time = time.perf_counter()
        state.save(Path(folder) / f"network{checkpoint.SUFFIX}")
        return time.perf_counter() - start_time


def _startup_seconds() -> float:
    start_time = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import styleforge.training"], check=True)
    return time.perf_counter() - start_time
