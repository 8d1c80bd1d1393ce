"""Pictures to project: read from files of any kind, and brought to the network's size."""
# Shapes: N targets, C image channels, H W image size.

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from styleforge.data.decode import decode
from styleforge.data.sources import open_source
from styleforge.data.transform import Recipe, Transform
from styleforge.networks import Generator

Align = Literal["none", "center-crop", "pad", "stretch"]
ALIGN: dict[Align, Transform | None] = {
    "none": None,
    "center-crop": "center-crop",
    "pad": "pad",
    "stretch": None,
}
"""What happens to pictures of other proportions than the network's; with ``none`` they are refused."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Target:
    """One picture to project."""

    name: str
    """Its file's name without folders and ending, made unique: the name of the folder for its results."""
    source: str
    """Where it was read."""
    image: Tensor
    """[C, H, W] uint8, of the network's size."""


def read_targets(
    paths: Sequence[str | Path],
    G: Generator,
    *,
    align: Align = "none",
    background: tuple[int, int, int] = (255, 255, 255),
    limit: int | None = None,
) -> list[Target]:
    """Reads pictures: upright, in 8 bits, converted to sRGB, resized (Lanczos) to the network's size.

    Args:
        paths: Pictures, folders of pictures, or zips of them.
        G: The generator that they are for.
        align: For other proportions than the network's: ``none`` refuses them, ``center-crop`` cuts, ``pad`` adds a
            border, ``stretch`` distorts.
        background: RGB colour of the border, and behind transparent pixels where the network makes no alpha.
        limit: Read the first so many only; None reads all.

    Raises:
        ValueError: No picture, one that is broken or has other proportions, or a network whose pictures no file holds.
        OSError: A file that is not there, or cannot be read.
    """
    if align not in ALIGN:
        raise ValueError(f"align: got {align!r}, expected one of {', '.join(ALIGN)} (--align)")
    channels = G.img_channels
    if channels not in (1, 3, 4):
        raise ValueError(
            f"targets: got a network of {channels} channels, expected gray, RGB or RGBA, as picture files hold; "
            "hand tensors to styleforge.inversion.project"
        )
    height, width = G.config.size
    recipe = Recipe(
        resolution=(height, width),
        transform=ALIGN[align],
        resize_filter="lanczos",
        channels=channels,  # type: ignore[arg-type]  # checked above
        background=background,
    )
    targets: list[Target] = []
    taken: set[str] = set()
    for source, read in itertools.islice(_files(paths), limit):
        try:
            picture = decode(read(), manage_colour=True).image
        except ValueError as error:
            raise ValueError(f"{source}: got a {error}, expected a picture; leave it out, or save it again") from error
        if align == "none" and picture.width * height != picture.height * width:
            raise ValueError(
                f"{source}: got {picture.width}x{picture.height} pixels, expected the proportions of the network's "
                f"{width}x{height}; choose what to do with --align center-crop, pad or stretch"
            )
        name = _unique(PurePosixPath(source.replace("\\", "/")).stem, taken)
        targets.append(Target(name=name, source=source, image=_to_tensor(recipe.apply(picture))))
    if not targets:
        raise ValueError("targets: got none, expected pictures or folders of pictures (--target)")
    return targets


def _files(paths: Sequence[str | Path]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Where each picture lies, and what reads its bytes."""
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder, expected a picture or a folder (--target)")
        if path.is_dir() or path.name.lower().endswith((".zip", ".gz", ".tgz")):
            source = open_source(path)
            for name in source.names:
                yield f"{path}/{name}", partial(source.read, name)
        else:
            yield str(path), path.read_bytes


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken, on file systems that ignore case as well."""
    candidate, number = name, 2
    while candidate.lower() in taken:
        candidate, number = f"{name}-{number}", number + 1
    taken.add(candidate.lower())
    return candidate


def _to_tensor(picture: Image.Image) -> Tensor:
    pixels = np.array(picture)  # [H, W] or [H, W, C]
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()
