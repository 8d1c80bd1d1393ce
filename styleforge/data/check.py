"""Checking: looks at every picture of a dataset and says whether networks can be trained on it as it is."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from styleforge.data.decode import channels_of, decode
from styleforge.data.labels import Labels, read_labels
from styleforge.data.prepare import in_order
from styleforge.data.sources import Source, open_source
from styleforge.networks.sizes import format_size, nearest_legal_sizes


@dataclass(kw_only=True, slots=True)
class DatasetReport:
    """What a look at every picture found."""

    path: str
    """The dataset."""
    kind: str
    """``zip``, ``folder``, ``LMDB`` or ``archive``."""
    count: int
    """Pictures, broken ones included."""
    sizes: dict[tuple[int, int], int]
    """(height, width) -> number of pictures, the most frequent first."""
    modes: dict[str, int]
    """Mode in the file, as Pillow names it -> number of pictures, the most frequent first."""
    channels: dict[int, int]
    """Number of channels once decoded -> number of pictures, the most frequent first."""
    broken: dict[str, str]
    """Name -> why the picture cannot be read."""
    duplicates: list[list[str]]
    """Groups of pictures with equal pixels."""
    label_kind: str | None
    """``class``, ``vector``, or None without labels."""
    classes: dict[str, int]
    """Class -> number of pictures, in the classes' order; empty without classes."""
    unlabelled: list[str]
    """Pictures without a label, where others have one."""
    label_error: str | None
    """Why the labels cannot be used."""

    @property
    def is_uniform(self) -> bool:
        """Whether all readable pictures have one size and one number of channels."""
        return len(self.sizes) == 1 and len(self.channels) == 1

    @property
    def nearest_legal(self) -> tuple[int, int] | None:
        """The (height, width) closest to the most frequent size that networks can make; None if nothing is readable."""
        return nearest_legal_sizes(*next(iter(self.sizes)), count=1)[0] if self.sizes else None

    @property
    def is_legal(self) -> bool:
        """Whether the most frequent size is one that networks can make."""
        return bool(self.sizes) and self.nearest_legal == next(iter(self.sizes))

    @property
    def labels_complete(self) -> bool:
        """Whether ``--cond`` would find a usable label for every picture."""
        return self.label_kind is not None and not self.unlabelled and self.label_error is None

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that prevents training; empty if there is none."""
        found = []
        if self.broken:
            found.append(f"{len(self.broken)} of {self.count} pictures are broken.")
        if len(self.sizes) > 1:
            found.append(f"The pictures have {len(self.sizes)} different sizes, expected one.")
        if len(self.channels) > 1:
            found.append(
                f"The pictures have different numbers of channels ({', '.join(map(str, sorted(self.channels)))})."
            )
        if self.sizes and not self.is_legal:
            near = ", ".join(map(format_size, nearest_legal_sizes(*next(iter(self.sizes)))))
            found.append(
                f"Networks cannot make {format_size(next(iter(self.sizes)))} (height×width); "
                f"the nearest legal sizes are {near}."
            )
        return found

    @property
    def warnings(self) -> list[str]:
        """One sentence for each thing worth knowing that does not prevent training."""
        found = []
        if self.duplicates:
            extra = sum(len(group) - 1 for group in self.duplicates)
            found.append(f"{extra} of {self.count} pictures are copies of others, pixel for pixel.")
        if self.label_error:
            found.append(f"Training with --cond will fail: {self.label_error}.")
        if self.unlabelled:
            found.append(
                f"Training with --cond will fail: {len(self.unlabelled)} pictures have no label, "
                f"such as {self.unlabelled[0]}."
            )
        empty = [name for name, count in self.classes.items() if count == 0]
        if empty:
            found.append(f"{len(empty)} of {len(self.classes)} classes have no picture, such as {empty[0]}.")
        return found

    @property
    def remedy(self) -> str | None:
        """The command that mends the problems; None if there is none."""
        if not self.problems or self.nearest_legal is None:
            return None
        height, width = self.nearest_legal
        return f"styleforge data pack {self.path} DEST.zip --transform=center-crop --resolution={width}x{height}"


def check(
    path: str | Path, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> DatasetReport:
    """Reads and decodes every picture of a dataset.

    Args:
        path: A zip, folder, LMDB or research archive.
        workers: Threads that decode; by default one per core.
        progress: Called with (pictures done, pictures in all).

    Raises:
        ValueError: There is no picture, or the file is nothing that holds pictures.
        OSError: The path cannot be read.
    """
    source = open_source(path)
    labels, label_error = _labels(source)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    channels: Counter[int] = Counter()
    broken: dict[str, str] = {}
    by_content: dict[bytes, list[str]] = defaultdict(list)
    for done, finding in enumerate(in_order(lambda name: _inspect(source, name), source.names, workers), start=1):
        if finding.problem:
            broken[finding.name] = finding.problem
        else:
            sizes[finding.size] += 1
            modes[finding.mode] += 1
            channels[finding.channels] += 1
            by_content[finding.digest].append(finding.name)
        if progress:
            progress(done, len(source.names))
    return DatasetReport(
        path=str(path),
        kind=source.kind,
        count=len(source.names),
        sizes=dict(sizes.most_common()),
        modes=dict(modes.most_common()),
        channels=dict(channels.most_common()),
        broken=broken,
        duplicates=[group for group in by_content.values() if len(group) > 1],
        label_kind=labels.kind if labels else None,
        classes=_balance(labels, source.names) if labels else {},
        unlabelled=labels.missing(source.names) if labels else [],
        label_error=label_error,
    )


@dataclass(frozen=True, slots=True)
class _Finding:
    """One picture, seen."""

    name: str
    problem: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    channels: int = 0
    digest: bytes = b""


def _inspect(source: Source, name: str) -> _Finding:
    try:
        decoded = decode(source.read(name))
    except (ValueError, OSError, MemoryError) as error:
        return _Finding(name, problem=str(error) or repr(error))
    image = decoded.image
    size, channels = (image.height, image.width), channels_of(image)
    digest = hashlib.sha256(f"{size} {channels}".encode() + image.tobytes()).digest()
    return _Finding(name, "", size, decoded.stored_mode, channels, digest)


def _labels(source: Source) -> tuple[Labels | None, str | None]:
    """The labels, or why they cannot be used."""
    try:
        return read_labels(source), None
    except ValueError as error:
        return None, str(error)


def _balance(labels: Labels, names: list[str]) -> dict[str, int]:
    """Number of pictures of each class."""
    if labels.kind != "class":
        return {}
    counts = Counter(labels.values[name] for name in names if name in labels.values)
    class_names = labels.class_names or tuple(str(i) for i in range(labels.size))
    return {class_name: counts[i] for i, class_name in enumerate(class_names)}
