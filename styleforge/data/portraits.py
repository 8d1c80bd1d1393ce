"""The built-in dataset: procedural portraits of people, drawn from independent, known factors.

Every picture is a pure function of its factors, and the factors are a pure function of (seed, index). The face is
painted on a head that turns in three dimensions, so where eyes, nose and teeth lie is known exactly: `landmarks`.
"""
# Shapes: H W picture size, F number of factors.

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from styleforge.data.portrait_factors import FACTORS, Factor, sample_factors
from styleforge.data.portrait_painters import paint_all
from styleforge.data.portrait_scene import Scene

__all__ = ["FACTORS", "Factor", "draw", "landmarks", "sample_factors", "write_portraits"]

MIN_SIDE = 16
"""Fewest pixels on a side in which a face can be made out."""


LOOSE = ("eyes", "mouth", "teeth")
"""Parts that `draw` can turn on their own."""


def draw(
    factors: np.ndarray,
    resolution: int | tuple[int, int] = 64,
    *,
    loose_yaw: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Draws one portrait.

    Args:
        factors: [F] numbers in the order of `FACTORS`, as from `sample_factors`.
        resolution: Side of a square, or (height, width), in pixels; in oblong pictures the portrait fills the
            shorter side.
        loose_yaw: Yaw in degrees of the parts in `LOOSE` that are not to follow the head, as no portrait of the
            dataset has it: for tests of whether a measure sees it. Loose teeth show within the open mouth alone.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        ValueError: A factor is out of its range, or the picture is too small.
    """
    scene = _scene(factors, resolution)
    paint_all(scene, {part: scene.turned(yaw) for part, yaw in (loose_yaw or {}).items()})
    return scene.canvas.to_uint8()


def landmarks(factors: np.ndarray, resolution: int | tuple[int, int] = 64) -> dict[str, tuple[float, float]]:
    """Where the features of a portrait lie, from the same head on which the drawer paints them.

    Args:
        factors: [F] numbers in the order of `FACTORS`.
        resolution: As for `draw`.

    Returns:
        (x, y) in pixels, x to the right and y down, where the top left pixel covers [0, 1] × [0, 1]; for
        ``left_eye`` and ``right_eye`` (as seen in the picture; where the iris is when it looks straight ahead),
        ``nose`` (its tip), ``mouth`` (middle of the opening), ``teeth`` (middle of what shows of them) and ``chin``.

    Raises:
        ValueError: As for `draw`.
    """
    scene = _scene(factors, resolution)
    return {name: scene.canvas.to_pixels(point) for name, point in scene.landmarks().items()}


def write_portraits(
    dest: str | Path,
    *,
    resolution: int | tuple[int, int] = 64,
    num: int = 5000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a dataset of portraits in the field's layout, as an uncompressed zip or as a folder.

    The pictures are ``00000/img00000000.png`` and so on, a thousand to a folder; ``dataset.json`` says that there
    are no labels, and ``factors.json`` holds the factors and each picture's numbers. The same arguments give the
    same bytes. The target appears when it is complete, or not at all.

    Args:
        dest: Target; a name that ends in ``.zip`` makes a zip, any other a folder.
        resolution: Side of a square, or (height, width), in pixels, at least 16.
        num: Number of pictures; a small dataset is the beginning of a large one with the same seed.
        seed: Which dataset.
        overwrite: Replace an existing zip, or a folder that was written by this function.
        progress: Called after each picture with the number done and ``num``.

    Raises:
        ValueError: An argument is out of range, or the target exists.
    """
    dest = Path(dest).resolve()
    size = _height_width(resolution)
    if num < 1:
        raise ValueError(f"num: got {num}, expected at least 1 picture")
    sample_factors(num - 1, seed)  # Complains about a bad seed before anything is touched.
    _refuse_to_harm(dest, overwrite)
    dest.parent.mkdir(parents=True, exist_ok=True)
    write = _write_zip if _is_zip(dest) else _write_folder
    part, old = (dest.with_name(dest.name + ending) for ending in (".partial", ".old"))
    _remove(part)
    try:
        write(part, _members(size, num, seed, progress))
        if dest.is_dir():
            dest.replace(old)
        part.replace(dest)
    except BaseException:  # An interruption too must leave nothing half-written.
        _remove(part)
        raise
    _remove(old)


def _height_width(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """Checks a resolution and returns it as (height, width)."""
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"resolution: got {height}×{width} (height×width), expected at least {MIN_SIDE} pixels on each side"
        )
    return height, width


def _scene(factors: np.ndarray, resolution: int | tuple[int, int]) -> Scene:
    """Checks the factors and sets up the drawing."""
    if np.shape(factors) != (len(FACTORS),):
        raise ValueError(f"factors: got shape {np.shape(factors)}, expected ({len(FACTORS)},), one number per factor")
    values = [float(value) for value in factors]
    for factor, value in zip(FACTORS, values, strict=True):
        low, high = factor.bounds
        if not low <= value <= high:
            raise ValueError(f"factors: got {factor.name} {value:g}, expected a number from {low:g} to {high:g}")
    return Scene(values, *_height_width(resolution))


def _members(
    size: tuple[int, int], num: int, seed: int, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, bytes]]:
    """Yields the dataset's files, name and content: the pictures, then the two lists."""
    values = {}
    for index in range(num):
        name = f"{index // 1000:05d}/img{index:08d}.png"
        factors = sample_factors(index, seed)
        values[name] = factors.tolist()
        buffer = io.BytesIO()
        Image.fromarray(draw(factors, size)).save(buffer, format="png", compress_level=1)
        yield name, buffer.getvalue()
        if progress is not None:
            progress(index + 1, num)
    yield "dataset.json", json.dumps({"labels": None}).encode()
    names = [factor.name for factor in FACTORS]
    yield (
        "factors.json",
        json.dumps({"names": names, "factors": [_entry(f) for f in FACTORS], "values": values}).encode(),
    )


def _entry(factor: Factor) -> dict[str, object]:
    """A factor as ``factors.json`` describes it."""
    entry: dict[str, object] = {"name": factor.name, "kind": factor.kind, "description": factor.description}
    if factor.values:
        return entry | {"values": factor.values, "weights": factor.probabilities}
    return entry | {"low": factor.low, "high": factor.high}


def _write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes files into an uncompressed zip whose bytes do not depend on the clock or the system."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)


def _write_folder(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes files into a new folder."""
    path.mkdir()
    for name, content in members:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(content)


def _is_zip(dest: Path) -> bool:
    """Whether a target's name asks for a zip."""
    return dest.suffix.lower() == ".zip"


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_to_harm(dest: Path, overwrite: bool) -> None:
    """Raises if writing to a target would lose something that the user has not given up."""
    if _is_zip(dest) and dest.is_dir():
        raise ValueError(f"{dest}: got a folder, expected the name of a new zip; choose another name")
    if not _is_zip(dest) and dest.is_file():
        raise ValueError(f"{dest}: got a file, expected a name that ends in .zip or a new folder; choose another name")
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return
    if not overwrite:
        raise ValueError(f"{dest}: exists already, expected a new name; choose another one or ask to overwrite it")
    if dest.is_dir() and not (dest / "factors.json").is_file():
        raise ValueError(f"{dest}: got a folder without factors.json, expected portraits to overwrite; remove it first")
