"""Progressive growing by a level of detail (Karras et al. 2018, Section 2; configs A to D).

``lod`` 0 is full resolution, 1 one halving, and so on; a fraction fades between two resolutions. Images keep their
full size: what a lower resolution shows is repeated by nearest neighbour.
"""
# Shapes: N batch, C image channels, H W image size.

from __future__ import annotations

import math

import torch
from torch import Tensor

from styleforge.ops import box_downsample2d, nearest_upsample2d


def split_lod(lod: float, doublings: int, progressive: bool) -> tuple[int, float]:
    """Splits a level of detail into whole halvings and the fade towards the next.

    Args:
        lod: Level of detail.
        doublings: The largest lod that the network has: the number of its doublings.
        progressive: Whether the network has RGB layers at every resolution.

    Returns:
        (halvings, fade): fade is in [0, 1).

    Raises:
        ValueError: The network does not grow, or has fewer resolutions.
    """
    if lod == 0:
        return 0, 0.0
    if not progressive:
        raise ValueError(
            f"lod: got {lod}, expected 0, since this network has RGB layers at its full resolution alone; "
            "use a config with progressive=True (config-a to config-d)"
        )
    if not 0 <= lod <= doublings:
        raise ValueError(f"lod: got {lod}, expected 0 to {doublings}, where the base grid is reached")
    halvings = math.floor(lod)
    return halvings, lod - halvings


def fade_images(img: Tensor, lod: float) -> Tensor:
    """Shows real images as a progressively grown discriminator must see them: with the detail that lod leaves.

    Args:
        img: [N, C, H, W] at full resolution.
        lod: Level of detail, at most the number of times that H and W can be halved.

    Returns:
        The shape of ``img``: averaged down by floor(lod) halvings, faded towards the next, repeated up again.
    """
    halvings, fade = split_lod(lod, min(img.shape[2:]).bit_length() - 1, progressive=True)
    img = box_downsample2d(img, 2**halvings)
    if fade > 0:
        img = torch.lerp(img, nearest_upsample2d(box_downsample2d(img, 2), 2), fade)
    return nearest_upsample2d(img, 2**halvings)
