"""Kernel inception distance (Bińkowski et al. 2018): unbiased squared maximum mean discrepancy between features."""
# Shapes: N M samples, F features.

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from styleforge.metrics.fid import Features, require_features


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate of the squared MMD with the kernel k(a, b) = (a·b / F + 1)³ (Section 4, Eq. 4).

    Args:
        x: [N, F], at least two samples.
        y: [M, F], at least two samples.

    Returns:
        Its expectation is 0 or more, but it can be below 0 for sets that are alike.
    """
    N, M = len(x), len(y)
    xx, yy, xy = (_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (N * (N - 1)) + (yy.sum() - yy.trace()) / (M * (M - 1))
    return float(within - 2 * xy.mean())


def kernel_distance(
    x: Features, y: Features, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """`squared_mmd` over random subsets, in float64.

    With fewer samples than ``subset_size``, subsets have as many as there are in the smaller set, as in the official
    release; a warning says so, since the spread over subsets then means less, or nothing if both sets are that small.

    Args:
        x: [N, F], by habit the generated ones.
        y: [M, F], by habit the real ones.
        num_subsets: How many pairs of subsets are drawn.
        subset_size: Samples in each, drawn without replacement.
        seed: Of the draws, which are torch-fidelity's.

    Returns:
        (mean, standard deviation) over subsets.

    Raises:
        ValueError: Fewer than two samples, numbers of features that differ, features that are not finite, or subsets
            that are too few or too small.
    """
    require_features("x", x, at_least=2)
    require_features("y", y, num_features=x.shape[1], at_least=2)
    if num_subsets < 1 or subset_size < 2:
        raise ValueError(
            f"kernel distance: got {num_subsets} subsets of {subset_size} samples, expected at least 1 of at least 2; "
            "100 of 1000 are usual"
        )
    size = min(subset_size, len(x), len(y))
    if size < subset_size:
        warnings.warn(
            f"kernel distance: got {len(x)} and {len(y)} samples, expected at least {subset_size} of each for subsets "
            f"of that size; subsets of {size} are taken",
            stacklevel=2,
        )
    rng = np.random.RandomState(seed)
    distances = []
    for _ in range(num_subsets):
        subset_x = _rows(x, rng.choice(len(x), size, replace=False))
        subset_y = _rows(y, rng.choice(len(y), size, replace=False))
        distances.append(squared_mmd(subset_x, subset_y))
    return float(np.mean(distances)), float(np.std(distances))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _rows(x: Features, rows: np.ndarray) -> Tensor:
    """Some of the samples, in float64 on the CPU."""
    if isinstance(x, Tensor):
        return x[torch.from_numpy(rows).to(x.device)].detach().cpu().double()
    return torch.from_numpy(x[rows]).double()
