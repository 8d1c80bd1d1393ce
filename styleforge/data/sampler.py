"""Which pictures come next: an endless, repeatable stream that can start at any picture, for any number of processes.

The stream has one global order. Position p lies in epoch e = p // n, whose order is a permutation drawn from
(seed, e) alone, so that a run that goes on at position p needs no history.

Processes share the stream by turns: with W processes, a step takes W·B consecutive positions from `start` on, of
which process r gets start + r, start + r + W, start + r + 2W, … Whatever W is, a step sees the same pictures. Turns
also keep the groups of the discriminator's minibatch standard deviation: a batch of M·G pictures forms the groups
{m, m + M, m + 2M, …}, and when W divides M each process's share consists of whole groups.
"""
# Shapes: B batch of this process, C image channels, H W image size.

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from styleforge.data.dataset import ImageDataset


class InfiniteSampler(Sampler[int]):
    """Endless indices into a dataset, each once per epoch.

    Args:
        num_items: Number of the dataset's entries n.
        seed: Chooses the order; not negative.
        shuffle: Draw a new order for every epoch; otherwise 0, 1, …, n - 1 again and again.
        start: Pictures that all processes together have already used.
        rank: This process, from 0.
        world_size: Number of processes.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        num_items: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_items < 1:
            raise ValueError(f"num_items: got {num_items}, expected at least 1")
        if min(seed, start) < 0:
            raise ValueError(f"--seed and start: got {seed} and {start}, expected numbers from 0 on")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: got {rank} of {world_size} processes, expected 0 to {world_size - 1}")
        self.num_items, self.seed, self.shuffle = num_items, seed, shuffle
        self.start, self.rank, self.world_size = start, rank, world_size

    def epoch(self, e: int) -> np.ndarray:
        """The order of epoch e: each of 0 … n - 1 once."""
        if not self.shuffle:
            return np.arange(self.num_items)
        # RandomState, since numpy froze its stream: an upgrade must not change what a resumed run sees.
        words = [self.seed % 2**32, self.seed >> 32, e % 2**32, e >> 32]
        return np.random.RandomState(words).permutation(self.num_items)

    def __iter__(self) -> Iterator[int]:
        current, order = -1, np.empty(0, np.int64)
        for position in itertools.count(self.start + self.rank, self.world_size):
            e, i = divmod(position, self.num_items)
            if e != current:
                current, order = e, self.epoch(e)
            yield int(order[i])


class _Batches(Dataset[tuple[Tensor, Tensor] | Exception]):
    """A dataset whose entries are batches: indices in, stacked tensors out.

    An error is handed over as a value, since the data loader would wrap it in a worker's traceback.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor] | Exception:
        try:
            images, labels = zip(*(self.dataset[i] for i in indices), strict=True)
        except (ValueError, OSError) as error:
            return error
        return torch.stack(images), torch.stack(labels)  # [B, C, H, W] uint8, [B, c_dim]


def batches(
    dataset: ImageDataset,
    *,
    batch_size: int,
    start: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    shuffle: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives this process's share of every step's batch, endlessly.

    The order depends neither on `num_workers` nor on torch's global random state, which stays untouched.

    Args:
        dataset: Pictures and labels.
        batch_size: Pictures per step in this process; all processes together take batch_size·world_size.
        start: Pictures that all processes together have already used; see `InfiniteSampler`.
        seed: Chooses the order.
        rank: This process, from 0.
        world_size: Number of processes.
        num_workers: Processes that read and decode ahead; 0 does it in this one.
        shuffle: Draw a new order for every epoch.

    Returns:
        Pairs of pictures [B, C, H, W] uint8 and labels [B, c_dim] float32, in pinned memory where there is a CUDA
        device.

    Raises:
        ValueError: A number is out of range, or a picture is broken or of another size.
        OSError: A picture cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    sampler = InfiniteSampler(len(dataset), seed=seed, shuffle=shuffle, start=start, rank=rank, world_size=world_size)
    loader = DataLoader(
        _Batches(dataset),
        sampler=_grouped(iter(sampler), batch_size),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # the loader draws a seed for its workers; not from the global state
    )
    return _raise_errors(loader)


def _raise_errors(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch[0], batch[1]


def _grouped(indices: Iterator[int], size: int) -> Iterator[list[int]]:
    while True:
        yield list(itertools.islice(indices, size))


def _leave_signals_to_the_parent(_: int) -> None:
    """Keeps workers alive through Ctrl-C and SIGTERM: the trainer saves first, and they end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
