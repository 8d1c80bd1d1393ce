"""Distances that need no download; LPIPS stands in `styleforge.features.lpips`."""
# Shapes: N batch, C channels, H W size of a map, K length of an embedding.

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.features.base import Distance, state_checksum
from styleforge.features.stand_ins import RANDOM_VGG, RandomVGG, frozen
from styleforge.images import rgb_view
from styleforge.networks import Discriminator


def unit_maps(maps: Sequence[Tensor], weights: Sequence[Tensor] | None = None) -> Tensor:
    """Lays feature maps out so that squared distances are LPIPS's (Zhang et al. 2018, Eq. 1).

    Args:
        maps: Each [N, C, H, W]; the vector of channels at every pixel is brought to length 1.
        weights: What each channel counts [C], not negative, for every map; None for 1.

    Returns:
        [N, K]: a squared distance is the mean over pixels of the weighted one between vectors, summed over the maps.
    """
    parts = []
    for i, x in enumerate(maps):
        # The small number stands inside the root, so that the gradient is finite where no channel responds.
        x = x * (x.square().sum(1, keepdim=True) + 1e-8).rsqrt()  # [N, C, H, W]
        scale = 1 / math.sqrt(x.shape[2] * x.shape[3])
        x = x * (scale if weights is None else weights[i].sqrt()[:, None, None] * scale)
        parts.append(x.flatten(1))
    return torch.cat(parts, dim=1)


class RandomVGGDistance(Distance):
    """LPIPS with the random VGG in place of a trained one, all channels counting the same."""

    def __init__(self) -> None:
        network = RandomVGG()
        super().__init__(network, name=RANDOM_VGG, checksum=state_checksum(network), stand_in=True)

    def _embed(self, img: Tensor) -> Tensor:
        assert isinstance(self.network, RandomVGG)
        return unit_maps(self.network.maps(rgb_view(img)))


class DiscriminatorDistance(Distance):
    """Pixels at several scales, plus a discriminator's feature maps, compared as LPIPS compares VGG's.

    Args:
        D: Copied as it is now. Images must have its channels; it sees those of another size resized (bilinear).
    """

    def __init__(self, D: Discriminator) -> None:
        super().__init__(frozen(D), name="pixel+discriminator", checksum=state_checksum(D), stand_in=True)

    def _embed(self, img: Tensor) -> Tensor:
        assert isinstance(self.network, Discriminator)
        scales = [img]
        while min(scales[-1].shape[2:]) >= 16:
            scales.append(F.avg_pool2d(scales[-1], 2))  # [N, C, h/2, w/2]
        # Squared distances of these are the mean squared error, averaged over the scales.
        pixels = [x.flatten(1) / math.sqrt(x[0].numel() * len(scales)) for x in scales]
        height, width = self.network.config.size
        if img.shape[2:] != (height, width):
            img = F.interpolate(img, (height, width), mode="bilinear", antialias=True)
        maps = list(self.network.feature_maps(img))
        return torch.cat([*pixels, unit_maps(maps) / math.sqrt(len(maps))], dim=1)
