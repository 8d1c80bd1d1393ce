"""``styleforge analyze factors``: how much a generator of portraits varies."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, PictureOptions, picture_options, progress_bar

if TYPE_CHECKING:
    from styleforge.analysis import FactorReport

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze factors --network demo --num 1000 --outdir out
  styleforge analyze factors --network runs/00000-auto-portraits-gpus1-batch16-gamma0.8 --trunc 0.7""",
)
@picture_options
@_measure(
    "--num",
    type=click.IntRange(min=2),
    default=1000,
    show_default=True,
    help="Pictures; their seeds are counted from 0.",
)
@_measure(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    show_default=True,
    help="Of the reader and of the portraits that it learns from.",
)
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for factors.json and factors.png.")
def factors(options: PictureOptions, num: int, seed: int, outdir: str) -> None:
    """Measure how much a generator of portraits varies: pose, mouth, hair and 16 more, against the data.

    For networks that were trained on the portraits of `styleforge data demo`; of any other the numbers mean nothing.
    A small network, the reader, learns on freshly drawn portraits to read the factors off a picture, and then reads
    them off generated ones and off drawn ones that it has not seen. That takes some minutes, once for each resolution;
    then the reader is in the cache.
    """
    from styleforge.analysis import FactorReader, factor_report, reader_config

    G = options.load()
    c, transform, config = options.parse_label(G), options.ws_transform(G), reader_config(G, seed)
    with progress_bar("Teaching the reader") as progress:
        reader = FactorReader.train_cached(config, progress=progress)
    with progress_bar("Reading") as progress:
        report = factor_report(
            G,
            num=num,
            c=c,
            truncation_psi=options.truncation_psi,
            truncation_cutoff=options.trunc_cutoff,
            transform=transform,
            noise_mode=options.noise_mode,
            lod=options.lod,
            batch=options.batch,
            reader=reader,
            progress=progress,
        )
    written = report.write(outdir, dataclasses.asdict(options))
    _print_factors(report)
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")


def _print_factors(report: FactorReport) -> None:
    """Shows one line for each factor."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("factor", no_wrap=True)
    for column in ("score", "spread", "distance", "chance"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for stats in report.factors:
        spread = "-" if stats.spread is None else f"{stats.spread:.2f}"
        numbers = f"{stats.score:.2f}", spread, f"{stats.distance:.2f}", f"{stats.chance:.2f}"
        table.add_row(stats.name, *numbers, stats.verdict)
    Console(highlight=False).print(table)
