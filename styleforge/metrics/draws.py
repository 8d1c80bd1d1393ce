"""Random numbers of metrics: each sample's follow from (seed, stream, its number) alone.

So neither the batch nor the process that happens to make a sample changes it, and a run that was stopped goes on with
the numbers it would have drawn.
"""
# Shapes: N samples, Z numbers per sample.

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

# Streams: what the numbers are for. Those of one stream tell nothing about those of another.
IMAGES = 0
"""Latents of generated pictures."""
LABELS = 1
"""Labels of generated pictures."""
NOISE = 2
"""Noise maps of generated pictures."""
PATHS = 3
"""Both ends of a path through the latent space."""
PATH_TIMES = 4
"""Where on its path a sample lies."""
DIRECTIONS = 5
"""Other ends of the paths that start at one picture."""


def _generators(seed: int, indices: Sequence[int], stream: int) -> Iterator[np.random.Generator]:
    """One generator, moved to where each sample's numbers begin."""
    bits = np.random.Philox(key=np.random.SeedSequence([seed, stream]).generate_state(2, np.uint64))
    generator, state = np.random.Generator(bits), bits.state
    for index in indices:
        state["state"]["counter"][2] = index  # Philox counts to 2^256: each sample has 2^128 blocks for itself
        bits.state = state
        yield generator


def draw_z(seed: int, indices: Sequence[int], z_dim: int, *, stream: int) -> Tensor:
    """Standard normal numbers.

    Args:
        seed: 0 or more.
        indices: The samples' numbers, 0 or more.
        z_dim: Numbers for each sample; the first ones do not depend on how many there are.
        stream: What they are for: one of this module's constants.

    Returns:
        [N, Z] float32 on the CPU.
    """
    z = np.empty((len(indices), z_dim), np.float32)
    for row, generator in zip(z, _generators(seed, indices, stream), strict=True):
        generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(z)


def draw_uniform(seed: int, indices: Sequence[int], *, stream: int) -> Tensor:
    """One number in [0, 1) for each sample: [N] float64 on the CPU; see `draw_z`."""
    numbers = [generator.random() for generator in _generators(seed, indices, stream)]
    return torch.tensor(numbers, dtype=torch.float64)


def draw_choice(seed: int, indices: Sequence[int], num: int, *, stream: int) -> Tensor:
    """One of the numbers 0 to num - 1, all equally likely, for each sample: [N] int64 on the CPU; see `draw_z`."""
    numbers = [int(generator.integers(num)) for generator in _generators(seed, indices, stream)]
    return torch.tensor(numbers, dtype=torch.int64)
