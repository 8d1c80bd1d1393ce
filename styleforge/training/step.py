"""One optimizer step of a training phase, in parts that fit into memory, on one process or many."""
# Shapes: N batch, C image channels or length of a label, H W image size.

from __future__ import annotations

import torch
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
    network, optimizer = state.network(phase.network), state.optimizers[phase.network]
    optimizer.zero_grad(set_to_none=True)
    share, at_a_time = share_of(state.config, batch)
    share = max(share // phase.shrink, 1)
    num_parts = -(-share // at_a_time)
    for part in range(num_parts):
        # Every num_parts-th image, which keeps the groups of the minibatch standard deviation together.
        accumulate(state, phase, real, labels, range(part, share, num_parts), share=share, lod=lod)
    if phase.after is not None:
        phase.after()
    dist.all_reduce_mean(p.grad for p in network.parameters() if p.grad is not None)
    state.scaler.step(optimizer)
    state.scaler.update()
    if phase.network == "G":
        state.G.clip_rho()


def accumulate(
    state: TrainState, phase: Phase, real: Tensor, labels: Tensor | None, rows: range, *, share: int, lod: float
) -> None:
    """Adds the gradients of a part of the share; no other process is asked.

    Args:
        state: As in `optimize`.
        phase: As in `optimize`.
        real: As in `optimize`.
        labels: As in `optimize`.
        rows: Which images of the share.
        share: How many images the gradients are a mean of, in this process.
        lod: As in `optimize`.
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
    index = torch.tensor(list(rows), device=state.device)
    c = None if labels is None else labels[index]
    loss = phase.loss(Batch(real=real[index], c=c, draws=draws, lod=lod), state.collector.report)
    loss = loss.sum() / share * phase.interval  # a lazy regulariser makes up for the steps it skips
    state.scaler.scale(loss).backward()
