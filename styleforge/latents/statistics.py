"""Many samples of w, and their moments, in memory that does not grow with their number."""
# Shapes: n samples of a chunk, Z/W length of z/w, C length of a label, M number of labels.

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from styleforge.networks import Generator

CHUNK = 4096
"""Samples at a time; so many vectors of 512 take 16 MB in float64."""


@torch.no_grad()
def sample_w(G: Generator, num_samples: int, seed: int = 0, *, c: Tensor | None = None) -> Iterator[Tensor]:
    """Draws w from a mapping network, for statistics: one stream of z for all, so that large numbers are quick.

    Args:
        G: The generator; work is done on its device.
        num_samples: How many.
        seed: Of numpy's default generator.
        c: One label [C] for all, or labels [M, C] to draw from; None draws from all classes of a conditional network.

    Yields:
        w [n, W] on the generator's device, up to `CHUNK` at a time.

    Raises:
        ValueError: Labels that the network cannot take.
    """
    labels = torch.eye(G.c_dim) if c is None else c.reshape(-1, c.shape[-1])  # [M, C]
    draws, label_draws = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    for start in range(0, num_samples, CHUNK):
        n = min(CHUNK, num_samples - start)
        z = torch.from_numpy(draws.standard_normal((n, G.z_dim), dtype=np.float32)).to(G.w_avg.device)
        rows = torch.from_numpy(label_draws.integers(len(labels), size=n)) if len(labels) else None
        yield G.mapping.map(z, None if rows is None else labels[rows.to(labels.device)].to(z.device))


def moments(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of samples that come in chunks, in one pass and float64 (Chan et al. 1983).

    Args:
        chunks: Samples [n, W] each, two or more in all.

    Returns:
        The mean [W] and the unbiased covariance [W, W], on the CPU.
    """
    count, mean, scatter = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for chunk in chunks:
        x = chunk.cpu().double()
        n, total = len(x), count + len(x)
        centred = x - x.mean(0)
        shift = x.mean(0) - mean
        mean = mean + shift * (n / total)
        scatter = scatter + centred.T @ centred + shift.outer(shift) * (count * n / total)
        count = total
    return mean, scatter / (count - 1)
