"""What Adam moves: w itself, or w seen from the prior, where every direction is as wide as the latents are."""
# Shapes: N batch, L number of ws, W length of w.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.latents import GaussianLatents
from styleforge.latents.gaussian import EIGENVALUE_FLOOR


class Whitening:
    """V along its principal axes, in units of their standard deviations: the prior's energy is u · u.

    The variances of V span many orders of magnitude. A step of Adam has about the same size in each coordinate, so in w
    it climbs the energy's steepest walls all the time; here it has none. The objective stays the same.

    Args:
        prior: The distribution of V.
        device: Where to compute, in float32.
    """

    def __init__(self, prior: GaussianLatents, device: torch.device) -> None:
        variances, axes = prior.principal_axes()
        scales = variances.clamp(min=EIGENVALUE_FLOOR * variances[0]).sqrt()  # as the energy counts them
        self.slope = prior.slope
        self.mean = prior.mean.to(device, torch.float32)
        self.to_v = (axes * scales).T.to(device, torch.float32)  # [W, W]
        self.from_v = (axes / scales).to(device, torch.float32)

    def to_w(self, u: Tensor) -> Tensor:
        """Whitened u [..., W] -> w."""
        return F.leaky_relu(self.mean + u @ self.to_v, self.slope)

    def from_w(self, w: Tensor) -> Tensor:
        """Inverse of `to_w`."""
        return (F.leaky_relu(w, 1 / self.slope) - self.mean) @ self.from_v
