"""Packing: from pictures of any kind to a dataset of one size and one mode.

The target appears under its name only when it is complete. A broken picture never ends the work unless one asks for
it, and an interrupted zip is taken up where it stopped by the same command.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from styleforge.data.dataset import subset
from styleforge.data.labels import Labels, is_sharded, labels_from_file, labels_from_folders, read_labels
from styleforge.data.prepare import SUFFIXES, ImageFormat, Job, Policy, in_order
from styleforge.data.sources import Source, open_source
from styleforge.data.transform import Channels, Recipe, ResizeFilter, Transform
from styleforge.data.writers import Entry, Writer, check_dest, open_writer


@dataclass(kw_only=True, slots=True)
class PackReport:
    """What packing did; written as JSON beside the target."""

    source: str
    """Where the pictures came from."""
    dest: str
    """Where the dataset lies."""
    found: int
    """Pictures in the source, after ``max_images``."""
    written: int = 0
    """Pictures in the dataset; 0 for a dry run."""
    resolution: tuple[int, int]
    """(height, width) of the dataset."""
    label_kind: str | None
    """``class``, ``vector`` or None."""
    label_size: int
    """Number of classes or length of the vectors."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name in the source -> why the picture was left out."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Name in the source -> what was done to the picture besides cropping and resizing."""
    files: dict[str, str] = field(default_factory=dict)
    """Name in the dataset -> name in the source."""
    settings: dict[str, object] = field(default_factory=dict)
    """The settings used."""

    def note_counts(self) -> dict[str, int]:
        """How many pictures each note stands for, the most frequent first."""
        return dict(Counter(note for notes in self.notes.values() for note in notes).most_common())


def pack(
    source: str | Path,
    dest: str | Path,
    *,
    resolution: int | tuple[int, int] | None = None,
    transform: Transform | None = None,
    resize_filter: ResizeFilter = "lanczos",
    channels: Channels = 3,
    background: tuple[int, int, int] = (255, 255, 255),
    max_images: int | None = None,
    labels: str | Path = "auto",
    image_format: ImageFormat = "png",
    on_error: Policy = "skip",
    on_odd: Policy = "convert",
    overwrite: bool = False,
    workers: int | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Makes a dataset out of pictures: upright, in sRGB, 8 bits, of one size and one number of channels.

    Args:
        source: A folder, zip, LMDB or research archive; see `styleforge.data.sources.open_source`.
        dest: A name that ends in ``.zip``, or a folder. A report is written beside it, ``DEST.report.json``.
        resolution: Side of a square, or (height, width); None if the pictures already have one legal size.
        transform: How proportions are made to fit; see `styleforge.data.transform.Recipe`.
        resize_filter: ``lanczos``, ``box`` (numbers of the papers on FFHQ at 256² need it), ``bicubic``, ``bilinear``.
        channels: 1, 3 or 4, or ``keep`` for pictures that all have the same.
        background: RGB colour behind transparent pixels and around padded pictures.
        max_images: Take a random subset of this many, the one that `ImageDataset` takes by default.
        labels: ``auto`` takes ``dataset.json``, else sub-folders unless they only number the pictures; ``folders``
            insists on sub-folders; ``none`` drops labels; anything else is the path of a CSV or JSON file.
        image_format: ``png`` (uncompressed), ``jpeg`` (quality 95) or ``webp`` (lossless).
        on_error: What to do about a broken file: ``skip`` it, ``convert`` what is left of a JPEG that was cut
            short (and skip others), or ``fail``.
        on_odd: What to do about a picture stored in another mode than the dataset's, such as gray, CMYK, 16 bits,
            a palette, or with transparency: ``convert``, ``skip`` or ``fail``.
        overwrite: Replace an existing dataset.
        workers: Threads that decode and resize; by default one per core.
        dry_run: Check everything that can be checked without decoding, and write nothing.
        progress: Called with (pictures done, pictures in all).

    Returns:
        The report.

    Raises:
        ValueError: A setting makes no sense, no size is legal, labels are incomplete, no picture is left, or a
            policy says ``fail``. The target is then as it was before.
        OSError: Reading the source or writing the target failed.
    """
    dest = Path(dest)
    recipe = Recipe(
        resolution=(resolution, resolution) if isinstance(resolution, int) else resolution,
        transform=transform,
        resize_filter=resize_filter,
        channels=channels,
        background=background,
    )
    job = Job(source=open_source(source), recipe=recipe, image_format=image_format, on_error=on_error, on_odd=on_odd)
    check_dest(dest, job.source.path, overwrite=overwrite)
    names = subset(job.source.names, max_images)
    chosen_labels = _choose_labels(labels, job.source, names)
    settings = asdict(recipe) | {"image_format": image_format}
    report = PackReport(
        source=str(source),
        dest=str(dest),
        found=len(names),
        resolution=job.output_size(names),
        label_kind=chosen_labels.kind if chosen_labels else None,
        label_size=chosen_labels.size if chosen_labels else 0,
        settings=settings | {"on_error": on_error, "on_odd": on_odd, "max_images": max_images, "labels": str(labels)},
    )
    if dry_run:
        return report
    writer = _open_writer(dest, job, names, settings)
    try:
        _write_pictures(writer, job, names, report, workers, progress)
        writer.finish(_metadata(chosen_labels, writer.entries))
    except OSError as error:
        writer.discard()
        raise OSError(f"{dest}: writing failed after {len(writer.entries)} pictures ({error})") from error
    except BaseException:
        writer.stop()
        raise
    report.written = len(writer.entries)
    report.files = {entry.file: entry.source for entry in writer.entries}
    report.notes = {entry.source: list(entry.notes) for entry in writer.entries if entry.notes}
    _write_report(dest, report)
    return report


def _open_writer(dest: Path, job: Job, names: Sequence[str], settings: dict[str, object]) -> Writer:
    """Opens the target; pictures of an interrupted run stay where this run would make the same ones."""
    identity = json.dumps(settings | {"source": str(job.source.path.resolve())}, sort_keys=True)
    wanted = set(names)

    def still_valid(entry: Entry) -> bool:
        return (
            entry.source in wanted
            and job.admits(entry.notes)
            and entry.fingerprint == job.source.fingerprint(entry.source)
        )

    return open_writer(dest, hashlib.sha256(identity.encode()).hexdigest(), still_valid)


def _write_pictures(
    writer: Writer,
    job: Job,
    names: Sequence[str],
    report: PackReport,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Makes and writes all pictures that are not there yet."""
    already_there = {entry.source for entry in writer.entries}
    todo = [name for name in names if name not in already_there]
    for outcome in in_order(job.make, todo, workers):
        if outcome.data is not None:
            writer.add(
                outcome.data,
                SUFFIXES[job.image_format],
                source=outcome.name,
                notes=outcome.notes,
                fingerprint=outcome.fingerprint,
            )
        elif outcome.fatal:
            raise ValueError(f"{outcome.name} in {report.source}: {outcome.problem}")
        else:
            report.skipped[outcome.name] = outcome.problem
        if progress:
            progress(len(writer.entries) + len(report.skipped), len(names))
    if not writer.entries:
        name, problem = next(iter(report.skipped.items()))
        raise ValueError(f"{report.source}: none of the {len(names)} pictures could be packed, {name}: {problem}")


def _choose_labels(labels: str | Path, source: Source, names: Sequence[str]) -> Labels | None:
    """The labels that a dataset will store; complete, or an error."""
    if labels == "none":
        return None
    chosen: Labels | None
    if labels == "auto":
        chosen = read_labels(source)
        if chosen is not None and source.metadata() is None and is_sharded(chosen):
            return None
    elif labels == "folders":
        chosen = labels_from_folders(source.names)
        if chosen is None:
            raise ValueError(f"--labels: got folders, but {source.path} does not have all pictures in sub-folders")
    else:
        chosen = labels_from_file(labels)
    missing = chosen.missing(names) if chosen else []
    if missing:
        raise ValueError(
            f"{source.path}: {len(missing)} of {len(names)} pictures have no label, such as {missing[0]}; complete "
            f"the labels or drop them with --labels=none"
        )
    return chosen


def _metadata(labels: Labels | None, entries: Sequence[Entry]) -> bytes:
    """The content of ``dataset.json``; ``classes`` keeps the number of classes where the last one has no picture."""
    if labels is None:
        return json.dumps({"labels": None}).encode()
    content: dict[str, object] = {"labels": [[entry.file, labels.values[entry.source]] for entry in entries]}
    if labels.kind == "class":
        content["classes"] = labels.class_names or [str(i) for i in range(labels.size)]
    return json.dumps(content).encode()


def _write_report(dest: Path, report: PackReport) -> None:
    path = dest.with_name(dest.name + ".report.json")
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(asdict(report), indent=1))
    partial.replace(path)
