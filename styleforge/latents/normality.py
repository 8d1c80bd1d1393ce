"""How normal the marginal distributions of W and V are (Wulff & Torralba, Section 2 and Figure 1)."""
# Shapes: N samples, D dimensions, C length of a label, M number of labels.

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.latents.gaussian import activation_slope
from styleforge.latents.statistics import sample_w
from styleforge.networks import Generator


@dataclass(kw_only=True, slots=True)
class MarginalNormality:
    """Every dimension of some samples, against the normal distribution with its mean and standard deviation."""

    samples: Tensor
    """[N, D]: what was measured, for histograms of single dimensions and of pairs."""
    skewness: Tensor
    """[D]: 0 for a normal distribution."""
    excess_kurtosis: Tensor
    """[D]: 0 for a normal distribution, above for heavier tails."""
    ks_distance: Tensor
    """[D]: the largest difference of the two distribution functions (Kolmogorov-Smirnov), 0 to 1. Of normal samples,
    95 in 100 dimensions stay below 0.886 / sqrt(N) (Lilliefors 1967)."""


def normality(samples: Tensor) -> MarginalNormality:
    """Measures how normal every dimension is.

    Args:
        samples: [N, D], two samples or more.

    Returns:
        Statistics [D] in float64, on the CPU. A dimension that never varies has skewness 0, excess kurtosis -3 and
        distance 0.5.
    """
    x = samples.cpu().double()
    N = len(x)
    x = x - x.mean(0)
    x = x / x.square().mean(0).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
    cdf = torch.special.ndtr(x.sort(dim=0).values * ((N - 1) / N) ** 0.5)  # [N, D], with the unbiased deviation
    empirical = torch.arange(N + 1).double()[:, None] / N  # sample i takes it from i / N to (i + 1) / N
    return MarginalNormality(
        samples=samples,
        skewness=x.pow(3).mean(0),
        excess_kurtosis=x.pow(4).mean(0) - 3,
        ks_distance=torch.maximum((empirical[1:] - cdf).amax(0), (cdf - empirical[:-1]).amax(0)),
    )


def marginal_normality(
    G: Generator, num_samples: int = 10_000, seed: int = 0, *, c: Tensor | None = None
) -> dict[str, MarginalNormality]:
    """Compares W with V, where the mapping network's last activation is undone.

    Args:
        G: The generator; w is drawn on its device.
        num_samples: How many samples; all are held in memory.
        seed: Of the samples.
        c: One label [C] for all, or labels [M, C] to draw from; None draws from all classes of a conditional network.

    Returns:
        ``{"w": …, "v": …}`` of the same samples.

    Raises:
        ValueError: Labels that the network cannot take.
    """
    w = torch.cat(list(sample_w(G, num_samples, seed, c=c)))  # [N, W]
    return {"w": normality(w), "v": normality(F.leaky_relu(w, 1 / activation_slope(G)))}
