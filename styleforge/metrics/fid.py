"""Fréchet inception distance (Heusel et al. 2017): how far apart two Gaussians are that were fitted to features."""
# Shapes: N samples, F features.

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Features = Tensor | np.ndarray
"""One row per sample [N, F]; an array may be a memory map of a file."""

_ROWS_AT_A_TIME = 4096


def require_features(name: str, x: Features, *, num_features: int | None = None, at_least: int = 1) -> None:
    """Checks features that any metric is made of; large files are read in parts.

    Args:
        name: What they are called, for the message.
        x: [N, F].
        num_features: F; None for any.
        at_least: Smallest N.

    Raises:
        ValueError: Another shape, too few samples, or numbers that are not finite.
    """
    if x.ndim != 2 or num_features not in (None, x.shape[1]):
        raise ValueError(
            f"{name}: got features of shape {list(x.shape)}, expected [any, {num_features or 'any'}]; "
            "compare features of one extractor"
        )
    if len(x) < at_least:
        raise ValueError(f"{name}: got {len(x)} samples, expected at least {at_least}; take more pictures")
    for start in range(0, len(x), _ROWS_AT_A_TIME):
        rows = x[start : start + _ROWS_AT_A_TIME]
        finite = (rows.isfinite() if isinstance(rows, Tensor) else torch.from_numpy(np.isfinite(rows))).all(1).tolist()
        if not all(finite):
            raise ValueError(
                f"{name}: got features that are not finite, first in sample {start + finite.index(False)}, expected "
                "numbers; look at that picture and at the extractor's weights"
            )


class Moments:
    """Count, mean and covariance of samples that come in batches, in float64; memory does not grow with the count.

    Args:
        num_features: F.
        device: Where sums are kept; it must know float64, which MPS does not.
    """

    def __init__(self, num_features: int, *, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self._mean = torch.zeros(num_features, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(num_features, num_features, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Takes a batch in.

        Args:
            features: [N, F] of any float type, on any device.

        Raises:
            ValueError: Another shape, or numbers that are not finite; nothing is taken in then.
        """
        require_features("features", features, num_features=len(self._mean), at_least=0)
        if len(features):
            x = features.detach().to(self._mean.device).double()
            mean = x.mean(0)  # [F]
            x = x - mean
            self._scatter.addmm_(x.T, x)
            self._move_mean(len(x), mean)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of samples together; neither of the two changes."""
        merged = Moments.from_state(self.state_dict())
        if other.count:
            merged._scatter += other._scatter.to(merged._scatter.device)
            merged._move_mean(other.count, other._mean.to(merged._mean.device))
        return merged

    def _move_mean(self, count: int, mean: Tensor) -> None:
        # Chan et al. 1983: the scatter within both groups, which is summed up already, and the one between them. All
        # is relative to means, so that a mean that is large against the deviations takes no digits from them.
        total = self.count + count
        delta = mean - self._mean
        self._scatter.addr_(delta, delta, alpha=self.count * count / total)
        self._mean += delta * (count / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """[F] float64.

        Raises:
            ValueError: There are no samples.
        """
        self._require(1)
        return self._mean.clone()

    @property
    def covariance(self) -> Tensor:
        """[F, F] float64, unbiased: the divisor is N - 1.

        Raises:
            ValueError: There are fewer than two samples.
        """
        self._require(2)
        return self._scatter / (self.count - 1)

    def _require(self, count: int) -> None:
        if self.count < count:
            raise ValueError(f"moments: got {self.count} samples, expected at least {count}; take more pictures")

    def state_dict(self) -> dict[str, Tensor]:
        """What `from_state` takes; the tensors change with the next batch."""
        return {"count": torch.tensor(self.count), "mean": self._mean, "scatter": self._scatter}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Moments:
        """Moments of their own from a `state_dict`."""
        moments = cls(len(state["mean"]), device=state["mean"].device)
        moments.count = int(state["count"])
        moments._mean.copy_(state["mean"])
        moments._scatter.copy_(state["scatter"])
        return moments


def frechet_distance(mu1: Features, sigma1: Features, mu2: Features, sigma2: Features) -> float:
    """|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), the squared 2-Wasserstein distance between two Gaussians.

    Covariances may be singular, as they are when there are fewer samples than features. With Σ = L Lᵀ the trace is
    |L₁|² + |L₂|² less twice the sum of the singular values of L₁ᵀ L₂. Near zero these lose no digits, unlike roots of
    the eigenvalues of Σ₁ Σ₂.

    Args:
        mu1: Mean [F].
        sigma1: Covariance [F, F].
        mu2: Mean [F].
        sigma2: Covariance [F, F].

    Returns:
        0 or more.

    Raises:
        ValueError: Shapes do not fit, numbers are not finite, or a matrix is no covariance.
    """
    mu1, sigma1 = _gaussian("first", mu1, sigma1)
    mu2, sigma2 = _gaussian("second", mu2, sigma2)
    if len(mu1) != len(mu2):
        raise ValueError(
            f"frechet distance: got {len(mu1)} and {len(mu2)} features, expected equal numbers; compare features of "
            "one extractor"
        )
    root1, root2 = _root("first", sigma1), _root("second", sigma2)
    cross = torch.linalg.svdvals(root1.T @ root2).sum()
    distance = (mu1 - mu2).square().sum() + root1.square().sum() + root2.square().sum() - 2 * cross
    return max(float(distance), 0.0)  # rounding can leave -1e-13 of two equal ones


def _gaussian(name: str, mu: Features, sigma: Features) -> tuple[Tensor, Tensor]:
    """Both in float64 on the CPU."""
    mu, sigma = (torch.as_tensor(x).cpu().double() for x in (mu, sigma))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise ValueError(
            f"frechet distance: got a {name} mean of shape {list(mu.shape)} and covariance of shape "
            f"{list(sigma.shape)}, expected [F] and [F, F]; Moments makes both"
        )
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ValueError(
            f"frechet distance: got a {name} mean or covariance that is not finite, expected numbers; compute it again "
            "from finite features"
        )
    return mu, sigma


def _root(name: str, sigma: Tensor) -> Tensor:
    """L [F, rank] with L Lᵀ = Σ, without the directions whose variance is that of rounding errors."""
    values, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
    if values[0] < -1e-4 * values[-1].abs():  # more than the rounding of a covariance taken in float32
        raise ValueError(
            f"frechet distance: got a {name} covariance with the eigenvalue {float(values[0]):.3g}, expected none "
            "below 0; compute it again with Moments"
        )
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt()
