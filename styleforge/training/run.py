"""The doors of training: starting a run, and going on with one."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from styleforge import dist
from styleforge.checkpoint import Checkpoint
from styleforge.data import ImageDataset
from styleforge.memory import keep_freed_memory, out_of_memory
from styleforge.precision import computes_bf16
from styleforge.training import run_dir as files
from styleforge.training.config import TrainConfig
from styleforge.training.console import Console
from styleforge.training.loop import Loop, OnSnapshot, TrainResult
from styleforge.training.probe import choose_batch_gpu
from styleforge.training.state import TrainState
from styleforge.training.step import check_batches, share_of
from styleforge.training.transfer import transfer


def train(
    config: TrainConfig,
    on_snapshot: OnSnapshot | None = None,
    *,
    init_from: Checkpoint | None = None,
    wandb_project: str | None = None,
    minutes: float | None = None,
    quiet: bool = False,
    auto_batch: bool = False,
) -> TrainResult:
    """Starts a training run in a new run directory.

    Args:
        config: What to do.
        on_snapshot: Called on every rank with (G_ema, cur_nimg) after each checkpoint, for example to measure; see
            `styleforge.training.loop.OnSnapshot`.
        init_from: A checkpoint whose weights are taken over where they fit (transfer learning).
        wandb_project: Project of Weights & Biases to log to; None for none.
        minutes: Time after which to save and stop; None for no limit.
        quiet: Print nothing.
        auto_batch: Find out how many images at a time fit into memory, in place of ``config.batch_gpu``.

    Returns:
        How it ended: complete, or stopped by a signal or the time limit after saving.

    Raises:
        ValueError: The config does not fit the data or the machine.
        DivergedError: A loss or weight is no longer finite; the last checkpoint is intact.
        MemoryError: Memory ran out; the last checkpoint is intact.
        OSError: Something cannot be read or written, or (`styleforge.dist.LostRankError`) another process died.
    """
    device = _prepare_device(config)
    config = clamped(config)
    with dist.Group(device), contextlib.ExitStack() as held:
        check_batches(config)
        dataset = open_dataset(config)
        choice = choose_batch_gpu(config, device) if auto_batch else None
        if choice is not None:
            config = dataclasses.replace(config, batch_gpu=choice.batch_gpu)
        state = _new_state(config, device, dataset)
        created = str(files.create(config, dist.world_size())) if dist.rank() == 0 else ""
        run_dir = Path(dist.broadcast_object(created))
        held.enter_context(_locked(run_dir))
        console = Console(run_dir / "log.txt", quiet)
        console.say(f"run directory {run_dir}")
        if choice is not None:
            console.say(choice.describe())
        _tell_of_groups(config, console)
        _tell_of_precision(config, device, console)
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
    auto_batch: bool = False,
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
        auto_batch: As in `train`; the number found changes the run's config.

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
    with dist.Group(device), _locked(run_dir):
        check_batches(config)
        try:
            dataset = open_dataset(config)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; if it has moved, say where to with --data") from error
        console = Console(run_dir / "log.txt", quiet)
        if auto_batch:
            choice = choose_batch_gpu(config, device)
            console.say(choice.describe())
            changes = {**(changes or {}), "batch_gpu": choice.batch_gpu}
            config = dataclasses.replace(config, batch_gpu=choice.batch_gpu)
        state = _new_state(config, device, dataset)
        _tell_of_groups(config, console)
        _tell_of_precision(config, device, console)
        found = files.last_good(run_dir, console.say)
        if found is not None:
            path, source = found
            state.restore(source)
            console.say(f"goes on at {state.counters.cur_nimg / 1000:.3f} kimg from {path}")
            if source.info.get("pictures", state.pictures) != state.pictures:
                console.say(
                    f"{config.data} holds other pictures than at the checkpoint: what is seen next is not what would "
                    "have been seen without the change"
                )
        else:
            console.say("goes on from the start: the run has no checkpoint yet")
        if changes and dist.rank() == 0:
            files.write_options(config, run_dir)
        return Loop(state, dataset, run_dir, console, on_snapshot, wandb_project, resumed=True, minutes=minutes).run()


@contextlib.contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """The lock of `styleforge.training.run_dir.locked`, held by rank 0 for all."""
    with contextlib.ExitStack() as held:
        with dist.together():
            if dist.rank() == 0:
                held.enter_context(files.locked(run_dir))
        yield


def _prepare_device(config: TrainConfig) -> torch.device:
    """Picks the device, and on a CPU keeps freed memory, since steps take and free the same tensors."""
    device = dist.pick_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # whose streams the phases are timed on
    return device


def clamped(config: TrainConfig) -> TrainConfig:
    """In fp16, limits the activations to 256 as the official release does, since 65,504 is the largest number there."""
    if config.precision != "fp16" or config.generator.conv_clamp or config.discriminator.conv_clamp:
        return config
    generator = dataclasses.replace(config.generator, conv_clamp=256.0)
    return dataclasses.replace(
        config, generator=generator, discriminator=dataclasses.replace(config.discriminator, conv_clamp=256.0)
    )


def _tell_of_groups(config: TrainConfig, console: Console) -> None:
    """Says when less than the whole batch at a time changes the minibatch standard deviation."""
    _, at_a_time = share_of(config, config.batch)
    wanted = config.discriminator.mbstd_group if config.discriminator.mbstd_channels else 1
    group, part = (
        max(size for size in range(1, min(wanted, num) + 1) if num % size == 0) for num in (config.batch, at_a_time)
    )
    if group != part:
        console.say(
            f"{at_a_time} images at a time form groups of {part} for the minibatch standard deviation, where the whole "
            f"batch of {config.batch} has groups of {group}; a multiple of {group} at a time keeps them (--batch-gpu)"
        )


def _tell_of_precision(config: TrainConfig, device: torch.device, console: Console) -> None:
    """Says when bf16 was asked for on a CPU that has to make it of float32."""
    if config.precision == "bf16" and device.type == "cpu" and not computes_bf16(device):
        console.say("this processor is not known to compute bf16, which then takes longer than float32 (--precision)")


def _new_state(config: TrainConfig, device: torch.device, dataset: ImageDataset) -> TrainState:
    """The state before the first step."""
    with _memory("for the networks alone; take smaller --cbase or --cmax"):
        state = TrainState(config, device)
    names = "\n".join(dataset.names).encode("utf-8", "surrogateescape")
    state.pictures = hashlib.sha256(names).hexdigest()
    return state


@contextlib.contextmanager
def _memory(advice: str) -> Iterator[None]:
    """Says in one sentence that memory ran out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(f"memory ran out {advice}") from error


def open_dataset(config: TrainConfig) -> ImageDataset:
    """Opens a config's dataset and checks that the networks fit it.

    Raises:
        ValueError: Size, channels or labels differ from the networks'.
        OSError: It cannot be read.
        MemoryError: The cache does not fit into memory.
    """
    with _memory("for the decoded pictures; leave out --cache or set --subset"):
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
