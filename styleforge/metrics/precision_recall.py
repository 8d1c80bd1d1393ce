"""Improved precision and recall (Kynkäänniemi et al. 2019), in blocks: memory does not grow with pairs of samples.

A set of points stands for a manifold: the union of balls around its points, each reaching as far as the point's k-th
nearest neighbour. Precision is the share of generated samples within the real manifold, recall that of real samples
within the generated one. `radii` and `covered` do a range of rows at a time, so that processes can share the work.

All distances are float64. A difference below rounding counts as none, so that a picture's copy lies in every ball that
the picture lies in, on whose very edge it often is.
"""
# Shapes: N M samples, F features, n m rows of a block.

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from styleforge.metrics.fid import Features, require_features

_ROWS, _COLUMNS = 2048, 4096  # of a block of pairs: 0.3 GB with 4,096 features
_ROUNDING = 1e-12
"""Bound on the error of a squared distance, relative to the squared lengths it is made of, for up to 8,192 features."""


def radii(points: Features, k: int = 3, *, rows: range | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Distances to the k-th nearest neighbour among the other points (Eq. 1).

    Args:
        points: [N, F].
        k: Which neighbour, from 1.
        rows: The points that are asked for; None for all.
        device: Where to compute; one without float64, such as MPS, does not do.

    Returns:
        [rows] float64 on the CPU.

    Raises:
        ValueError: k is not in 1 … N - 1.
    """
    if not 1 <= k < len(points):
        raise ValueError(
            f"k: got {k} with {len(points)} samples, expected 1 or more and fewer than there are samples; take more "
            "pictures or a smaller k"
        )
    centre = _block(points, range(1), device)  # [1, F]
    parts = [torch.empty(0, dtype=torch.float64)]
    for own in _ranges(range(len(points)) if rows is None else rows, _ROWS):
        a = _block(points, own, device) - centre  # [n, F]
        nearest = a.new_empty(len(a), 0)
        for others in _ranges(range(len(points)), _COLUMNS):
            b = _block(points, others, device) - centre  # [m, F]
            # -|a - b|² + |a|²: the largest of a row are its nearest.
            closeness = torch.addmm(b.square().sum(1), a, b.T, beta=-1, alpha=2)  # [n, m]
            both = range(max(own.start, others.start), min(own.stop, others.stop))
            for i in both:  # a point is no neighbour of its own
                closeness[i - own.start, i - others.start] = -torch.inf
            nearest = torch.cat([nearest, closeness], 1).topk(min(k, nearest.shape[1] + len(b)), dim=1).values
        squared = a.square().sum(1) - nearest[:, -1]  # [n]
        parts.append(squared.clamp(min=0).sqrt().cpu())
    return torch.cat(parts)


def covered(
    samples: Features,
    points: Features,
    radii: Tensor,
    *,
    rows: range | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Whether samples lie in the manifold that the points stand for (Eq. 1): in any ball, edges included.

    Args:
        samples: [N, F].
        points: [M, F].
        radii: [M] of the balls around the points.
        rows: The samples that are asked for; None for all.
        device: Where to compute; one without float64, such as MPS, does not do.

    Returns:
        [rows] bool on the CPU.
    """
    centre = _block(points, range(1), device)  # [1, F]
    squared_radii = radii.to(device).double().square()
    parts = [torch.empty(0, dtype=torch.bool)]
    for own in _ranges(range(len(samples)) if rows is None else rows, _ROWS):
        a = _block(samples, own, device) - centre  # [n, F]
        depth = a.new_full((len(a),), -torch.inf)
        for others in _ranges(range(len(points)), _COLUMNS):
            b = _block(points, others, device) - centre  # [m, F]
            # |a|² + |b|² - 2 a·b <= r² up to rounding, with what depends on a left for the end.
            reach = (1 + _ROUNDING) * squared_radii[others.start : others.stop] - (1 - _ROUNDING) * b.square().sum(1)
            depth = depth.maximum(torch.addmm(reach, a, b.T, alpha=2).amax(1))
        parts.append((depth >= (1 - _ROUNDING) * a.square().sum(1)).cpu())
    return torch.cat(parts)


def precision_recall(
    real: Features, fake: Features, k: int = 3, *, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Precision and recall (Eq. 2).

    Args:
        real: Features of real pictures [N, F], in memory or a memory map.
        fake: Features of generated pictures [M, F].
        k: Balls reach to the k-th nearest neighbour.
        device: Where to compute; one without float64, such as MPS, does not do.

    Returns:
        (precision, recall), each from 0 to 1.

    Raises:
        ValueError: k or fewer samples, numbers of features that differ, or features that are not finite.
    """
    require_features("real", real, at_least=k + 1)
    require_features("fake", fake, num_features=real.shape[1], at_least=k + 1)
    precision = covered(fake, real, radii(real, k, device=device), device=device)
    recall = covered(real, fake, radii(fake, k, device=device), device=device)
    return float(precision.double().mean()), float(recall.double().mean())


def _ranges(rows: range, length: int) -> Iterator[range]:
    for start in range(rows.start, rows.stop, length):
        yield range(start, min(start + length, rows.stop))


def _block(x: Features, rows: range, device: torch.device | str) -> Tensor:
    """Some rows in float64 on a device."""
    part = x[rows.start : rows.stop]
    part = part.detach() if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
    return part.to(device).double()
