"""Which distance a projection looks at."""
# Shapes: N batch, C image channels, H W image size.

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from styleforge.features import DISTANCES, Distance, available, load_distance
from styleforge.networks import Discriminator

CHOICES = ("auto", *DISTANCES)
"""Names that `choose_distance` takes."""


def choose_distance(
    choice: str | Distance = "auto",
    *,
    D: Discriminator | None = None,
    weights_dir: str | Path | None = None,
    offline: bool = False,
) -> Distance:
    """Makes the distance that was asked for, on the CPU.

    Args:
        choice: One of `CHOICES`, or a distance, which is returned. ``auto`` is ``lpips`` if its weights are at hand,
            else ``pixel+discriminator`` if D is given, else ``random-vgg``.
        D: The discriminator for ``pixel+discriminator``.
        weights_dir: Folder with weights files; None for $STYLEFORGE_WEIGHTS and the caches.
        offline: Never download weights.

    Raises:
        ValueError: Another name, or ``pixel+discriminator`` without D.
        OSError: The weights that were asked for are not at hand and cannot be fetched.
    """
    if isinstance(choice, Distance):
        return choice
    if choice not in CHOICES:
        raise ValueError(f"distance: got {choice!r}, expected one of {', '.join(CHOICES)} (--distance)")
    if choice == "pixel+discriminator" and D is None:
        raise ValueError(
            "distance: got pixel+discriminator without a discriminator, expected a checkpoint with D in it; take such "
            "a one, or a distance that needs none (--distance random-vgg)"
        )
    if choice == "auto":
        stand_in = "random-vgg" if D is None else "pixel+discriminator"
        choice = "lpips" if available("lpips", weights_dir) else stand_in
    return load_distance(choice, weights_dir=weights_dir, offline=offline, D=D)


def shrink(img: Tensor, size: int) -> Tensor:
    """Averages images [N, C, H, W] down until their longer side is ``size``; smaller ones stay as they are."""
    longer = max(img.shape[2:])
    if longer <= size:
        return img
    return F.interpolate(img, [max(1, round(side * size / longer)) for side in img.shape[2:]], mode="area")
