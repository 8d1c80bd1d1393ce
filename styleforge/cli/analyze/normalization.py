"""``styleforge analyze normalization``: what a generator's normalizations came to."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, PictureOptions, picture_options

if TYPE_CHECKING:
    from styleforge.analysis.normalization import Quantity

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze normalization --network demo --outdir out
  styleforge analyze normalization --network runs/00000-config-a-photos-gpus1-batch32-gamma10-pin --of rho""",
)
@picture_options
@_measure(
    "--of",
    "quantity",
    type=click.Choice(["rho", "demodulation"]),
    help="rho of PIN, or demodulation coefficients; by default the one that the network has.",
)
@_measure("--num", type=click.IntRange(min=1), default=256, show_default=True, help="Random w; seeds from 0.")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for normalization.json and .png.")
def normalization(options: PictureOptions, quantity: Quantity | None, num: int, outdir: str) -> None:
    """Show what the normalizations of a network came to, layer by layer.

    rho is for networks with PIN: how much of pixel norm is in each channel's mixture with instance norm. Demodulation
    coefficients are for configs B to F.
    """
    from styleforge.analysis.normalization import normalization_report

    G = options.load()
    report = normalization_report(G, options.ws(G, range(num)), quantity)
    written = report.write(outdir, {"num": num, **dataclasses.asdict(options)})
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
