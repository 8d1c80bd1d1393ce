"""Feature networks: what metrics measure with, and what inversion looks at.

Three kinds of numbers come out of here. ``inception``, ``vgg16`` and ``lpips`` with the published weights give
numbers that can be held against published ones. The stand-ins ``random-vgg``, ``discriminator`` and
``pixel+discriminator`` need no download, and compare models only among themselves. `wrap` takes any other network.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from styleforge.features.base import Distance, Extractor, Features, wrap
from styleforge.features.distances import DiscriminatorDistance, RandomVGGDistance
from styleforge.features.inception import load_inception
from styleforge.features.lpips import LPIPS
from styleforge.features.stand_ins import DiscriminatorExtractor, RandomVGGExtractor
from styleforge.features.vgg import load_vgg16
from styleforge.features.weights import INCEPTION, VGG16, find
from styleforge.networks import Discriminator

__all__ = [
    "DISTANCES",
    "EXTRACTORS",
    "Distance",
    "Extractor",
    "Features",
    "available",
    "load_distance",
    "load_extractor",
    "wrap",
]

EXTRACTORS = ("inception", "vgg16", "random-vgg", "discriminator")
"""Names that `load_extractor` takes."""
DISTANCES = ("lpips", "random-vgg", "pixel+discriminator")
"""Names that `load_distance` takes."""
_NEEDS = {
    "inception": (INCEPTION, ("torch_fidelity",)),
    "vgg16": (VGG16, ("torch_fidelity", "torchvision")),
    "lpips": (VGG16, ("torchmetrics", "torchvision")),
}


def load_extractor(
    name: str = "inception",
    *,
    path: str | Path | None = None,
    weights_dir: str | Path | None = None,
    offline: bool = False,
    D: Discriminator | None = None,
) -> Extractor:
    """Makes an extractor, on the CPU, or where D is.

    Args:
        name: One of `EXTRACTORS`.
        path: The weights file, if it is known.
        weights_dir: A folder to look for it in; None for $STYLEFORGE_WEIGHTS.
        offline: Never download.
        D: The discriminator for ``discriminator``; it is copied.

    Raises:
        ValueError: Another name, ``discriminator`` without one, a file with other contents, or a missing package.
        OSError: The weights are not at hand and cannot be fetched.
    """
    _require_name("extractor", name, EXTRACTORS, D)
    if name == "random-vgg":
        return RandomVGGExtractor()
    if name == "discriminator":
        assert D is not None
        return DiscriminatorExtractor(D)
    load = load_inception if name == "inception" else load_vgg16
    return load(path=path, weights_dir=weights_dir, offline=offline)


def load_distance(
    name: str = "lpips",
    *,
    path: str | Path | None = None,
    weights_dir: str | Path | None = None,
    offline: bool = False,
    D: Discriminator | None = None,
) -> Distance:
    """Makes a distance, on the CPU, or where D is.

    Args:
        name: One of `DISTANCES`.
        path: VGG16's weights file for ``lpips``, if it is known.
        weights_dir: As in `load_extractor`, and so are the other arguments and errors.
        offline: Never download.
        D: The discriminator for ``pixel+discriminator``; it is copied.
    """
    _require_name("distance", name, DISTANCES, D)
    if name == "random-vgg":
        return RandomVGGDistance()
    if name == "pixel+discriminator":
        assert D is not None
        return DiscriminatorDistance(D)
    return LPIPS(path=path, weights_dir=weights_dir, offline=offline)


def _require_name(kind: str, name: str, names: tuple[str, ...], D: Discriminator | None) -> None:
    if name not in names:
        raise ValueError(f"{kind}: got {name!r}, expected one of {', '.join(names)}")
    if "discriminator" in name and D is None:
        raise ValueError(
            f"{kind}: got {name} without a discriminator, expected a checkpoint with D in it; take one, or random-vgg"
        )


def available(name: str, weights_dir: str | Path | None = None) -> bool:
    """Whether an extractor or a distance needs no download, nor a package that is missing.

    Args:
        name: One of `EXTRACTORS` or `DISTANCES`; for the stand-ins this is always true.
        weights_dir: As in `load_extractor`.

    Raises:
        ValueError: Another name.
    """
    if name not in EXTRACTORS + DISTANCES:
        known = ", ".join(dict.fromkeys(EXTRACTORS + DISTANCES))
        raise ValueError(f"features: got {name!r}, expected one of {known}")
    if name not in _NEEDS:
        return True
    file, packages = _NEEDS[name]
    return find(file.name, weights_dir) is not None and all(importlib.util.find_spec(p) for p in packages)
