"""Noise maps under optimisation: what keeps them noise (Karras et al. 2020, Appendix D)."""
# Shapes: N batch, h w size of a noise map.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 8
"""Side at which the pyramid of a noise map ends."""


def autocorrelation(noise: Tensor) -> Tensor:
    """How much signal hides in noise: squared autocorrelations at shifts by one pixel, over a pyramid of scales.

    Means of 2×2 pixels, times 2 to keep the variance, make the next scale, down to 8×8. At every scale, the mean over
    pixels of n(x, y) · n(x - 1, y), with wrap-around, is squared; and so is that of vertical neighbours.

    Args:
        noise: [N, 1, h, w].

    Returns:
        [N], 0 or more; differentiable.
    """
    total = noise.new_zeros(len(noise))
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, axis)).mean([1, 2, 3]).square()
        if min(noise.shape[2:]) <= SMALLEST:
            return total
        noise = F.avg_pool2d(noise, 2) * 2  # [N, 1, h/2, w/2]


@torch.no_grad()
def renormalize_(noise: Tensor) -> None:
    """Brings every noise map of [N, 1, h, w] to mean 0 and variance 1, in place; one of equal values to zeros."""
    noise -= noise.mean([1, 2, 3], keepdim=True)
    noise *= (noise.square().mean([1, 2, 3], keepdim=True) + 1e-20).rsqrt()
