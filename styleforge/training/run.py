"""The doors of training: starting a run, and going on with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from styleforge import dist
from styleforge.allocator import keep_freed_memory
from styleforge.checkpoint import Checkpoint
from styleforge.data import ImageDataset
from styleforge.training import run_dir as files
from styleforge.training.config import TrainConfig
from styleforge.training.console import Console
from styleforge.training.loop import Loop, OnSnapshot, TrainResult, check_batches
from styleforge.training.state import TrainState
from styleforge.training.transfer import transfer


def train(
    config: TrainConfig,
    on_snapshot: OnSnapshot | None = None,
    *,
    init_from: Checkpoint | None = None,
    wandb_project: str | None = None,
    minutes: float | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Starts a training run in a new run directory.

    Args:
        config: What to do.
        on_snapshot: Called on rank 0 with (G_ema, cur_nimg) after each checkpoint, for example to measure.
        init_from: A checkpoint whose weights are taken over where they fit (transfer learning).
        wandb_project: Project of Weights & Biases to log to; None for none.
        minutes: Time after which to save and stop; None for no limit.
        quiet: Print nothing.

    Returns:
        How it ended: complete, or stopped by a signal or the time limit after saving.

    Raises:
        ValueError: The config does not fit the data or the machine.
        DivergedError: A loss or weight is no longer finite; the last checkpoint is intact.
        MemoryError: Memory ran out; the last checkpoint is intact.
        OSError: Something cannot be read or written, or (`styleforge.dist.LostRankError`) another process died.
    """
    device = _prepare_device(config)
    with dist.Group(device):
        check_batches(config)
        dataset = open_dataset(config)
        state = TrainState(config, device)
        run_dir = Path()
        if dist.rank() == 0:
            run_dir = files.create(config, dist.world_size())
        console = Console(run_dir / "log.txt", quiet)
        console.say(f"run directory {run_dir}")
        if init_from is not None:
            _transfer(state, init_from, console)
        return Loop(state, dataset, run_dir, console, on_snapshot, wandb_project, resumed=False, minutes=minutes).run()


def resume(
    run_dir: str | Path,
    on_snapshot: OnSnapshot | None = None,
    *,
    changes: dict[str, Any] | None = None,
    wandb_project: str | None = None,
    minutes: float | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Goes on with a run exactly where its newest good checkpoint is, in the same directory.

    Args:
        run_dir: The run directory.
        on_snapshot: As in `train`.
        changes: Fields of the config that change, such as ``total_kimg``; without any, the run ends as it would have
            without the interruption.
        wandb_project: As in `train`.
        minutes: As in `train`.
        quiet: Print nothing.

    Returns:
        As `train`.

    Raises:
        ValueError: The folder's options or all of its checkpoints are damaged.
        OSError: The folder is no run directory; and as `train`.
        DivergedError: As `train`.
        MemoryError: As `train`.
    """
    run_dir = Path(run_dir)
    config = files.read_options(run_dir)
    if changes:
        config = TrainConfig.from_dict(config.to_dict() | changes)
    device = _prepare_device(config)
    with dist.Group(device):
        check_batches(config)
        dataset = open_dataset(config)
        state = TrainState(config, device)
        console = Console(run_dir / "log.txt", quiet)
        found = files.last_good(run_dir, console.say)
        if found is not None:
            path, source = found
            state.restore(source)
            console.say(f"goes on at {state.counters.cur_nimg / 1000:.3f} kimg from {path}")
        else:
            console.say("goes on from the start: the run has no checkpoint yet")
        if changes and dist.rank() == 0:
            files.write_options(config, run_dir)
        return Loop(state, dataset, run_dir, console, on_snapshot, wandb_project, resumed=True, minutes=minutes).run()


def _prepare_device(config: TrainConfig) -> torch.device:
    """Picks the device, and on a CPU keeps freed memory, since steps take and free the same tensors."""
    device = dist.pick_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def open_dataset(config: TrainConfig) -> ImageDataset:
    """Opens a config's dataset and checks that the networks fit it.

    Raises:
        ValueError: Size, channels or labels differ from the networks'.
        OSError: It cannot be read.
    """
    dataset = ImageDataset(
        config.data,
        resolution=config.generator.size,
        use_labels=config.cond,
        mirror=config.mirror,
        max_images=config.subset,
        subset_seed=config.seed,
        cache=config.cache,
    )
    if (dataset.img_channels, dataset.c_dim) != (config.generator.img_channels, config.generator.c_dim):
        raise ValueError(
            f"{config.data}: got {dataset.img_channels} channels and labels of length {dataset.c_dim}, expected "
            f"{config.generator.img_channels} and {config.generator.c_dim} as the networks have; was the data changed?"
        )
    return dataset


def _transfer(state: TrainState, source: Checkpoint, console: Console) -> None:
    """Takes over the weights of another checkpoint where they fit, and lists the rest."""
    generator = source.G or source.G_ema
    for name, mine, theirs in (
        ("G", state.G, generator),
        ("G_ema", state.G_ema, source.G_ema or generator),
        ("D", state.D, source.D),
    ):
        if theirs is None:
            console.say(f"{name}: the checkpoint has none, starts from random weights")
        else:
            console.say(f"{name}: {transfer(mine, theirs).describe()}")
