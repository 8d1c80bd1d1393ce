"""Pictures: the one conversion between uint8 and float, and grids of images.

Everywhere in the project ``img`` is float NCHW in [-1, 1] and ``images_uint8`` is uint8 NCHW in [0, 255].
"""
# Shapes: N batch, C image channels, H W image size.

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from styleforge.files import atomic_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""File name endings, in lower case, that are taken for pictures."""


def to_uint8(img: Tensor) -> Tensor:
    """Converts float images in [-1, 1] to uint8, as the official releases do: x · 127.5 + 128, cut off, clamped.

    Args:
        img: Images of any shape and float dtype; values outside [-1, 1] are clamped.

    Returns:
        The same shape in uint8.
    """
    return (img.detach().float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def from_uint8(images_uint8: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Converts uint8 images to float in [-1, 1]: x / 127.5 - 1.

    Args:
        images_uint8: Images of any shape.
        dtype: Float type of the result.

    Returns:
        The same shape in ``dtype``.
    """
    return images_uint8.to(dtype) / 127.5 - 1


def rgb_view(img: Tensor) -> Tensor:
    """Shows pictures as RGB: gray is repeated, alpha lets white through, RGB stays.

    Networks that measure pictures see them so.

    Args:
        img: [N, C, H, W], uint8, or float in [-1, 1]; C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA). Floats
            outside the range, alpha too, are continued linearly, so that gradients never vanish.

    Returns:
        [N, 3, H, W] of the same type; differentiable for floats.

    Raises:
        ValueError: More channels.
    """
    channels = img.shape[1]
    if not 1 <= channels <= 4:
        raise ValueError(
            f"images: got {channels} channels, expected 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA); choose those "
            "that are to be seen"
        )
    if channels in (2, 4):
        img, alpha = img[:, :-1], img[:, -1:]
        if img.is_floating_point():
            img = 1 + (img - 1) * ((alpha + 1) / 2)
        else:
            alpha = alpha.int()
            img = ((img * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
    return img.expand(-1, 3, -1, -1)


def to_pil(image_uint8: Tensor) -> Image.Image:
    """Turns one picture into a Pillow image.

    Args:
        image_uint8: [C, H, W] uint8; C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA). More channels show
            the first three.
    """
    array = image_uint8.cpu().numpy().transpose(1, 2, 0)  # [H, W, C]
    if array.shape[2] > 4:
        array = array[:, :, :3]
    if array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(array))


def grid(images_uint8: Tensor, columns: int | None = None, padding: int = 0) -> Tensor:
    """Lays images out in rows, left to right, top to bottom.

    Args:
        images_uint8: [N, C, H, W] uint8.
        columns: Images per row; by default the row count whose grid is closest to a square.
        padding: White pixels between images.

    Returns:
        [C, rows·(H + padding) - padding, columns·(W + padding) - padding] uint8; missing cells are white.
    """
    N, C, H, W = images_uint8.shape
    if N == 0 or (columns is not None and columns < 1):
        raise ValueError(f"grid: got {N} images in {columns} columns, expected at least one of each (--columns)")
    if columns is None:
        columns = max(1, round((N * H / W) ** 0.5))
    columns = min(columns, N)
    rows = -(-N // columns)
    sheet = images_uint8.new_full((C, rows * (H + padding) - padding, columns * (W + padding) - padding), 255)
    for i in range(N):
        y, x = (i // columns) * (H + padding), (i % columns) * (W + padding)
        sheet[:, y : y + H, x : x + W] = images_uint8[i]
    return sheet


def flatten(picture: Image.Image) -> Image.Image:
    """Shows a Pillow image's alpha over white: for formats that have none."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    white = Image.new(picture.mode, picture.size, "white")
    return Image.alpha_composite(white.convert("RGBA"), picture.convert("RGBA")).convert(picture.mode[:-1])


def save(image_uint8: Tensor, path: str | Path) -> None:
    """Writes one picture, whole or not at all; the file name's ending chooses the format.

    Args:
        image_uint8: [C, H, W] uint8.
        path: Target file; its folder is made if it is missing. JPEG shows alpha over white.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    path = Path(path)
    picture = to_pil(image_uint8)
    with atomic_path(path) as temporary:
        _save(picture, temporary, path.suffix.lower())


def encode(image_uint8: Tensor, suffix: str, *, compress: bool = True) -> bytes:
    """What `save` would write into a file.

    Args:
        image_uint8: [C, H, W] uint8.
        suffix: The file name's ending, one of `SUFFIXES`; it chooses the format.
        compress: Off for a PNG that is larger, but faster to write and to read, as in datasets.
    """
    stream = io.BytesIO()
    _save(to_pil(image_uint8), stream, suffix, compress=compress)
    return stream.getvalue()


def _save(picture: Image.Image, target: Path | IO[bytes], suffix: str, *, compress: bool = True) -> None:
    """Writes a Pillow image in the format that belongs to a file name's ending."""
    kind = Image.registered_extensions().get(suffix)  # None lets Pillow say what is wrong with a path's ending
    if kind == "JPEG":
        flatten(picture).save(target, format=kind, quality=92)
    elif kind == "PNG" and not compress:
        picture.save(target, format=kind, compress_level=0)
    else:
        picture.save(target, format=kind)


def save_grid(img: Tensor, path: str | Path, columns: int | None = None, padding: int = 0) -> None:
    """Writes float images [N, C, H, W] in [-1, 1] as one grid; see `grid` and `save`."""
    save(grid(to_uint8(img), columns, padding), path)
