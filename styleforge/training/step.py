"""One optimizer step of a training phase, in parts that fit into memory, on one process or many."""
# Shapes: N batch, C image channels or length of a label, H W image size.

from __future__ import annotations

import contextlib

from torch import Tensor

from styleforge import dist
from styleforge.training.config import TrainConfig
from styleforge.training.draws import draw
from styleforge.training.phases import Batch, Phase
from styleforge.training.schedule import batch_at
from styleforge.training.state import TrainState


def share_of(config: TrainConfig, batch: int) -> tuple[int, int]:
    """(images of a step in this process, how many of them at a time).

    Raises:
        ValueError: The batch cannot be divided among processes or parts.
    """
    num_processes = dist.world_size()
    if batch % num_processes:
        raise ValueError(f"batch: got {batch} for {num_processes} processes, expected a multiple (--batch)")
    share = batch // num_processes
    at_a_time = min(config.batch_gpu or share, share)
    if share % at_a_time:
        raise ValueError(f"batch_gpu: got {at_a_time} of {share} images, expected a divisor (--batch-gpu)")
    return share, at_a_time


def check_batches(config: TrainConfig) -> None:
    """Refuses batches that cannot be divided, at any level of detail, before anything starts; see `share_of`."""
    for lod in range(config.generator.plan.doublings + 1):
        share_of(config, batch_at(config, float(lod)))


def optimize(state: TrainState, phase: Phase, real: Tensor, labels: Tensor | None, *, batch: int, lod: float) -> None:
    """One optimizer step; gradients accumulate over parts of the share and are averaged over processes.

    Args:
        state: Networks, optimizers and counters; changed in place.
        phase: What is optimized, and by which loss.
        real: This process's share of the step's real images [N, C, H, W].
        labels: Their labels [N, C]; None without labels.
        batch: Images of the step, over all processes.
        lod: Level of detail.
    """
    optimizer = state.optimizers[phase.network]
    optimizer.zero_grad(set_to_none=True)
    share, at_a_time = share_of(state.config, batch)
    share = max(share // phase.shrink, 1)
    num_parts = -(-share // at_a_time)
    for part in range(num_parts):
        # Every num_parts-th image, which keeps the groups of the minibatch standard deviation together.
        rows = range(part, share, num_parts)
        accumulate(state, phase, real, labels, rows, share=share, lod=lod, average=part == num_parts - 1)
    if phase.after is not None:
        phase.after()
    state.scaler.step(optimizer)
    state.scaler.update()
    if phase.network == "G":
        state.G.clip_rho()


def accumulate(
    state: TrainState,
    phase: Phase,
    real: Tensor,
    labels: Tensor | None,
    rows: range,
    *,
    share: int,
    lod: float,
    average: bool = False,
) -> None:
    """Adds the gradients of a part of the share; no other process is asked, but for the mean after the last part.

    Args:
        state: As in `optimize`.
        phase: As in `optimize`.
        real: As in `optimize`.
        labels: As in `optimize`.
        rows: Which images of the share.
        share: How many images the gradients are a mean of, in this process.
        lod: As in `optimize`.
        average: Whether the sum is complete then, and is averaged over processes, piece by piece as it is ready.
    """
    state.network("D" if phase.network == "G" else "G").requires_grad_(False)
    state.network(phase.network).requires_grad_(True)
    draws = draw(
        state.G,
        [state.counters.cur_nimg + i * dist.world_size() + dist.rank() for i in rows],
        seed=state.config.seed,
        phase=phase.name,
        lod=lod,
        device=state.device,
        images=phase.draws_images,
    )
    part = slice(rows.start, rows.stop, rows.step)  # no list of numbers, for which a GPU would be waited for
    c = None if labels is None else labels[part]
    loss = phase.loss(Batch(real=real[part], c=c, draws=draws, lod=lod), state.collector.report)
    loss = loss.sum() / share * phase.interval  # a lazy regulariser makes up for the steps it skips
    parameters = state.network(phase.network).parameters()
    with dist.averaged_gradients(parameters) if average else contextlib.nullcontext():
        state.scaler.scale(loss).backward()
