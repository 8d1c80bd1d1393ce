"""``styleforge analyze droplets``: whether pictures have circular artifacts."""

from __future__ import annotations

import dataclasses
from functools import partial

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, PictureOptions, picture_options, progress_bar

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze droplets --network demo --num 200 --outdir out
  styleforge analyze droplets --network runs/00000-config-a-photos-gpus1-batch32-gamma10 --noise-mode random""",
)
@picture_options
@_measure("--num", type=click.IntRange(min=1), default=500, show_default=True, help="Pictures; seeds from 0.")
@_output(
    "--examples",
    type=click.IntRange(min=1, max=16),
    default=8,
    show_default=True,
    help="Pictures to show: those with the highest scores.",
)
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for droplets.json and pictures.")
def droplets(options: PictureOptions, num: int, examples: int, outdir: str) -> None:
    """Look for droplets, or circular artifacts: a place where the activations peak in most channels at once.

    A picture's score says how far half of the channels at least stand out at that place, in units of what 95 % of the
    pixels stay below; 3 counts as a droplet. Generators with instance norm (config A) are prone to them.
    """
    from styleforge.analysis.droplet_report import survey

    G = options.load()
    ws = options.ws(G, range(num))
    with progress_bar("Looking") as progress:
        report = survey(
            G,
            ws,
            examples=examples,
            noise_mode=options.noise_mode,
            lod=options.lod,
            batch=options.batch,
            progress=progress,
        )
    written = report.write(outdir, dataclasses.asdict(options))
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
