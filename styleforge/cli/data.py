"""``styleforge data``: pack pictures into a dataset, check one, draw the built-in one."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import Colour, GroupedCommand, GroupedOption, Resolution, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from styleforge.data.check import DatasetReport
    from styleforge.data.pack import PackReport
    from styleforge.data.prepare import ImageFormat, Policy
    from styleforge.data.transform import Channels, ResizeFilter, Transform

SHOWN = 20
"""How many lines a list shows before it only counts the rest."""
MODES = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGBA"}

_size = partial(click.option, cls=GroupedOption, group="Size")
_colour = partial(click.option, cls=GroupedOption, group="Colour")
_content = partial(click.option, cls=GroupedOption, group="Content")
_odd = partial(click.option, cls=GroupedOption, group="Odd pictures", type=click.Choice(["skip", "convert", "fail"]))
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.group()
def data() -> None:
    """Pack, check and draw datasets."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd files; the reports name what matters


@data.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge data pack photos photos_256.zip --transform=center-crop --resolution=256
  styleforge data pack car_lmdb car.zip --transform=center-crop --resolution=512x384 --max-images=100000
  styleforge data pack cifar-10-python.tar.gz cifar10.zip
  styleforge data pack icons icons.zip --resolution=64 --transform=pad --channels=4
  styleforge data pack photos photos.zip --resolution=256 --labels=labels.csv --dry-run""",
)
@click.argument("source", required=False)
@click.argument("dest", required=False)
@click.option("--source", "source_option", hidden=True)
@click.option("--dest", "dest_option", hidden=True)
@_size(
    "--resolution",
    type=Resolution(),
    metavar="WxH",
    help="Size of the dataset: 256, or WxH. Without it, the pictures must already have one legal size.",
)
@_size(
    "--transform",
    type=click.Choice(["center-crop", "center-crop-wide", "pad"]),
    help="center-crop cuts to the proportions of --resolution; center-crop-wide adds black bars to make it W by W; "
    "pad fits the whole picture in and fills up with the background. Without it, pictures are stretched.",
)
@_size(
    "--resize-filter",
    type=click.Choice(["lanczos", "box", "bicubic", "bilinear"]),
    default="lanczos",
    show_default=True,
    help="The papers' numbers on FFHQ at 256x256 need box.",
)
@_colour(
    "--channels",
    type=click.Choice(["1", "3", "4", "keep"]),
    default="3",
    show_default=True,
    help="1 gray, 3 RGB, 4 RGBA; keep if all pictures have the same.",
)
@_colour(
    "--background",
    type=Colour(),
    metavar="NAME|#RRGGBB",
    default="white",
    show_default=True,
    help="Shows behind transparent pixels and around padded pictures.",
)
@_content(
    "--max-images", type=click.IntRange(min=1), help="Take a random subset of this many pictures, always the same one."
)
@_content(
    "--labels",
    default="auto",
    show_default=True,
    metavar="auto|folders|none|FILE",
    help="auto: dataset.json, else sub-folders; FILE: rows of name,label in a .csv, or a .json like dataset.json.",
)
@_odd(
    "--on-error",
    default="skip",
    show_default=True,
    help="Broken files; convert keeps what is left of a JPEG that was cut short.",
)
@_odd(
    "--on-odd",
    default="convert",
    show_default=True,
    help="Pictures stored in another mode than the dataset's: gray, CMYK, 16 bits, palette, transparency.",
)
@_output(
    "--format",
    "image_format",
    type=click.Choice(["png", "jpeg", "webp"]),
    default="png",
    show_default=True,
    help="png is uncompressed and fastest to read; jpeg has quality 95; webp is lossless.",
)
@_output("--overwrite", is_flag=True, help="Replace an existing dataset.")
@_output("--workers", type=click.IntRange(min=1), help="Threads that decode and resize; by default one per core.")
@_output("-n", "--dry-run", is_flag=True, help="Show the plan and write nothing.")
def pack(
    source: str | None,
    dest: str | None,
    source_option: str | None,
    dest_option: str | None,
    resolution: tuple[int, int] | None,
    transform: Transform | None,
    resize_filter: ResizeFilter,
    channels: str,
    background: tuple[int, int, int],
    max_images: int | None,
    labels: str,
    on_error: Policy,
    on_odd: Policy,
    image_format: ImageFormat,
    overwrite: bool,
    workers: int | None,
    dry_run: bool,
) -> None:
    """Make a dataset DEST (a .zip or a folder) out of the pictures in SOURCE.

    SOURCE is a folder, a zip, an LMDB folder, cifar-10-python.tar.gz or MNIST's train-images-idx3-ubyte.gz. Pictures
    are set upright, converted to sRGB and 8 bits, cropped and resized; DEST.report.json tells what was done. A zip
    that was interrupted is taken up by the same command. --source and --dest may be given as options, too.
    """
    places = [place for place in (source, dest) if place is not None]
    source = source_option or (places.pop(0) if places else None)
    dest = dest_option or (places.pop(0) if places else None)
    if source is None or dest is None or places:
        raise click.UsageError("expected one SOURCE and one DEST, such as: styleforge data pack photos photos.zip")
    kept_channels: dict[str, Channels] = {"1": 1, "3": 3, "4": 4, "keep": "keep"}
    from styleforge.data.pack import pack as pack_dataset

    try:
        with progress_bar("Packing") as progress:
            report = pack_dataset(
                source,
                dest,
                resolution=resolution,
                transform=transform,
                resize_filter=resize_filter,
                channels=kept_channels[channels],
                background=background,
                max_images=max_images,
                labels=labels,
                image_format=image_format,
                on_error=on_error,
                on_odd=on_odd,
                overwrite=overwrite,
                workers=workers,
                dry_run=dry_run,
                progress=progress,
            )
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from here" if dest.lower().endswith(".zip") else ""
        click.echo(f"Stopped: {dest} is as it was before{goes_on}.", err=True)
        raise
    _show_packed(report, dry_run)


@data.command(epilog="\b\nExample:\n  styleforge data check photos.zip")
@click.argument("path")
@click.option("--workers", type=click.IntRange(min=1), help="Threads that decode; by default one per core.")
@click.pass_context
def check(ctx: click.Context, path: str, workers: int | None) -> None:
    """Look at every picture of the dataset at PATH and report what is in it.

    Counts sizes, modes and classes, and names broken and repeated pictures. The exit code is 1 if the dataset cannot
    be trained on as it is; then the report ends with the command that mends it.
    """
    from styleforge.data.check import check as check_dataset

    with progress_bar("Checking") as progress:
        report = check_dataset(path, workers=workers, progress=progress)
    _show_checked(report)
    ctx.exit(1 if report.problems else 0)


@data.command(epilog="\b\nExample:\n  styleforge data demo portraits.zip --resolution 64 --num 5000 --seed 0")
@click.argument("dest")
@click.option(
    "--resolution", type=Resolution(), metavar="WxH", default="64", show_default=True, help="Size of the pictures."
)
@click.option("--num", type=click.IntRange(min=1), default=5000, show_default=True, help="Number of pictures.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which portraits.")
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset.")
def demo(dest: str, resolution: tuple[int, int], num: int, seed: int, overwrite: bool) -> None:
    """Draw the built-in dataset of portraits into DEST (a .zip or a folder)."""
    from styleforge.data.portraits import write_portraits

    with progress_bar("Drawing") as progress:
        write_portraits(dest, resolution=resolution, num=num, seed=seed, overwrite=overwrite, progress=progress)
    click.echo(f"Drew {num} portraits of {resolution[1]}x{resolution[0]} into {dest}.")


def _show_packed(report: PackReport, dry_run: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    height, width = report.resolution
    labels = {None: "no labels", "class": f"{report.label_size} classes", "vector": f"vectors of {report.label_size}"}
    shape = f"{width}x{height} pixels, {labels[report.label_kind]}"
    if dry_run:
        console.print(f"Would pack {report.found} pictures from {report.source} into {report.dest}: {shape}.")
        return
    console.print(f"Packed {report.written} of {report.found} pictures into {report.dest}: {shape}.")
    _show_table(console, "Done to pictures", {note: str(count) for note, count in report.note_counts().items()})
    _show_table(console, "Skipped", report.skipped)
    console.print(f"Details: {report.dest}.report.json")


def _show_checked(report: DatasetReport) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    counts = report.classes.values()
    labels = {
        None: "none",
        "class": f"{len(counts)} classes with {min(counts, default=0)} to {max(counts, default=0)} pictures",
        "vector": "vectors",
    }
    facts = {
        "pictures": str(report.count),
        "width x height": _histogram({f"{w}x{h}": count for (h, w), count in report.sizes.items()}),
        "mode": _histogram(report.modes),
        "channels": _histogram({f"{n} ({MODES[n]})": count for n, count in report.channels.items()}),
        "broken": str(len(report.broken)),
        "repeated": str(sum(len(group) - 1 for group in report.duplicates)),
        "labels": labels[report.label_kind],
    }
    if report.nearest_legal:
        height, width = report.nearest_legal
        facts["nearest legal size"] = f"{width}x{height}{' (as it is)' if report.is_legal else ''}"
    _show_table(console, f"{report.path} ({report.kind})", facts)
    _show_table(console, "Class", {name: str(count) for name, count in report.classes.items()})
    _show_table(console, "Broken", report.broken)
    _show_table(console, "Repeated", {group[0]: ", ".join(group[1:4]) for group in report.duplicates})
    for sentence in report.warnings:
        console.print(f"Note: {sentence}")
    for sentence in report.problems:
        console.print(f"Problem: {sentence}")
    if report.remedy:
        console.print(f"To mend it: {report.remedy}")
    elif not report.problems:
        console.print("Ready for training.")


def _histogram(counts: dict[str, int]) -> str:
    """The most frequent values with their counts, in one line."""
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{value}: {count}" for value, count in list(counts.items())[:SHOWN]]
    return ", ".join(shown) + (f", … and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")


def _show_table(console: Console, title: str, rows: dict[str, str]) -> None:
    """Prints the first lines of a two-column table; nothing if there is no line."""
    from rich.table import Table

    if not rows:
        return
    table = Table(title, "")
    for name, value in list(rows.items())[:SHOWN]:
        table.add_row(name, value)
    if len(rows) > SHOWN:
        table.add_row(f"… and {len(rows) - SHOWN} more", "")
    console.print(table)
