"""Labels of a dataset: class indices or vectors, from ``dataset.json``, sub-folders, or a CSV or JSON file."""
# Shapes: N pictures, C label size.

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from styleforge.data.sources import METADATA, Source

SHARD = re.compile(r"\d{5}")
"""Folder names that `pack` gives to every thousand pictures, as the official tools do."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Label of each picture of a dataset."""

    values: dict[str, int | tuple[float, ...]]
    """Picture name -> class index, or vector."""
    kind: str
    """``class`` or ``vector``."""
    size: int
    """Number of classes, or length of the vectors."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes, where they are known."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """The names that have no label."""
        return [name for name in names if name not in self.values]

    def array(self, names: Sequence[str]) -> np.ndarray:
        """Labels of the named pictures: classes as [N] int64, vectors as [N, C] float32."""
        return np.array([self.values[name] for name in names], np.int64 if self.kind == "class" else np.float32)


def make_labels(pairs: Iterable[tuple[str, Any]], origin: str, class_names: Sequence[str] | None = None) -> Labels:
    """Checks labels as a file gives them.

    Args:
        pairs: (picture name, class index or list of numbers).
        origin: Where they come from, for messages.
        class_names: Names of the classes by index; fixes the number of classes.

    Raises:
        ValueError: A label is neither of the two, kinds are mixed, vectors differ in length, a class is negative
            or has no name.
    """
    values: dict[str, int | tuple[float, ...]] = {}
    first: tuple[str, str] | None = None  # (description, name) of the first label
    for name, value in pairs:
        label = _parse(value)
        if label is None:
            raise ValueError(
                f"{origin}: got {value!r} as label of {name}, expected a class index (0, 1, …) or a list of numbers"
            )
        description = "a class index" if isinstance(label, int) else f"a vector of {len(label)}"
        first = first or (description, name)
        if description != first[0]:
            raise ValueError(
                f"{origin}: labels are mixed, {name} has {description} but {first[1]} has {first[0]}; "
                f"expected class indices only, or vectors of one length only"
            )
        values[name.replace("\\", "/")] = label  # as written on Windows
    if first is None:
        raise ValueError(f"{origin}: got no labels")
    if first[0] != "a class index":
        return Labels(values, "vector", len(next(iter(values.values()))))  # type: ignore[arg-type]
    size = max(values.values()) + 1  # type: ignore[operator]
    if class_names is not None:
        if size > len(class_names):
            raise ValueError(f"{origin}: got class {size - 1}, but only {len(class_names)} names of classes")
        size = len(class_names)
    return Labels(values, "class", size, None if class_names is None else tuple(class_names))


def read_labels(source: Source) -> Labels | None:
    """The labels of a dataset: those of ``dataset.json`` where that exists, else the names of sub-folders.

    Returns:
        The labels, or None if there are none.

    Raises:
        ValueError: ``dataset.json`` is malformed.
    """
    metadata = source.metadata()
    if metadata is None:
        return labels_from_folders(source.names)
    origin = f"{source.path}: {METADATA}"
    return _labels_of_json(metadata, origin) if metadata.get("labels") else None


def labels_from_folders(names: Sequence[str]) -> Labels | None:
    """Takes the first folder below the pictures' common folder as the class.

    Args:
        names: Picture names such as ``cat/001.png``.

    Returns:
        Classes in the sorted order of their folders; None if pictures lie outside of folders or all in one.
    """
    common = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120  # names, not files
    start = len(common) + 1 if common else 0
    folders = {name: name[start:].split("/")[:-1] for name in names}
    if not all(folders.values()):
        return None
    class_names = sorted({parts[0] for parts in folders.values()})
    index = {folder: i for i, folder in enumerate(class_names)}
    return make_labels(((name, index[parts[0]]) for name, parts in folders.items()), "sub-folders", class_names)


def is_sharded(labels: Labels) -> bool:
    """Whether labels from sub-folders only reflect numbered folders ``00000``, ``00001``, … of a split dataset."""
    return labels.class_names is not None and all(SHARD.fullmatch(name) for name in labels.class_names)


def labels_from_file(path: str | Path) -> Labels:
    """Reads labels from a file beside the pictures.

    Args:
        path: A JSON file like ``dataset.json``, or a CSV file whose rows hold the picture's name and one class (a
            number or a word) or several numbers. A first row that starts with ``file``, ``filename``, ``name``,
            ``image`` or ``path`` is a heading.

    Raises:
        ValueError: The file is in no such format.
        OSError: It cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        try:
            return _labels_of_json(json.loads(path.read_text()), str(path))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: expected labels as JSON, but it is not valid ({error})") from error
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{path}: got labels in a {path.suffix or 'nameless'} file, expected .csv or .json")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [(row[0].strip(), [cell.strip() for cell in row[1:]]) for row in csv.reader(stream) if row]
    if rows and rows[0][0].lower() in ("file", "filename", "name", "image", "path"):
        rows = rows[1:]
    for name, cells in rows:
        if not cells or not all(cells):
            raise ValueError(f"{path}: got no label for {name}, expected rows like name.png,3 or name.png,0.5,1.2")
    if all(len(cells) == 1 for _, cells in rows) and not all(cells[0].isdecimal() for _, cells in rows):
        index = {word: i for i, word in enumerate(sorted({cells[0] for _, cells in rows}))}
        return make_labels(((name, index[cells[0]]) for name, cells in rows), str(path), list(index))
    try:
        numbers = [(name, [float(cell) for cell in cells]) for name, cells in rows]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; several labels per picture must be numbers") from error
    return make_labels(((name, row[0] if len(row) == 1 else row) for name, row in numbers), str(path))


def _labels_of_json(content: Any, origin: str) -> Labels:
    """Labels of a JSON object like that of ``dataset.json``; the key ``classes`` is this project's own."""
    pairs = content.get("labels") if isinstance(content, dict) else None
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise ValueError(f'{origin}: expected {{"labels": [["name.png", 6], ...]}}, got something else')
    class_names = content.get("classes")
    return make_labels(pairs, origin, [str(name) for name in class_names] if isinstance(class_names, list) else None)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)


def _parse(value: Any) -> int | tuple[float, ...] | None:
    """A class index or a vector, or None for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value) if 0 <= value < 2**31 and value == int(value) else None
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (int, float)) for item in value):
        return tuple(float(item) for item in value) if all(map(math.isfinite, value)) else None
    return None
