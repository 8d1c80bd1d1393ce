"""``styleforge analyze smoothness``: singular values of dG/dw, and speed along interpolations."""

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
  styleforge analyze smoothness --network demo --outdir out
  styleforge analyze smoothness --network stylegan2-ffhq-config-f.pkl --num 4 --rank 64""",
)
@picture_options
@_measure("--num", type=click.IntRange(min=2), default=16, show_default=True, help="Points w; seeds from 0.")
@_measure(
    "--rank",
    type=click.IntRange(min=1),
    help="This many of the largest singular values, by randomized decomposition; by default all of a small network, "
    "64 of a large one.",
)
@_measure("--moments", type=click.IntRange(min=2), default=17, show_default=True, help="Moments of each interpolation.")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for smoothness.json and .png.")
def smoothness(options: PictureOptions, num: int, rank: int | None, moments: int, outdir: str) -> None:
    """Measure how evenly pictures follow w: singular values of dG/dw, and path lengths along interpolations.

    Figure 17 of the StyleGAN2 paper. Every point is the w of a seed; interpolations run between points 0 and 1, 2 and
    3, and so on. Derivatives are exact.
    """
    from styleforge.analysis.jacobian import suggested_rank
    from styleforge.analysis.smoothness import smoothness_report

    G = options.load()
    if options.lod:
        raise click.UsageError("--lod: expected 0, since derivatives are those of the whole network")
    ws = options.ws(G, range(num))
    if not (ws == ws[:, :1]).all():
        raise click.UsageError("expected one w for all layers; leave out --trunc-cutoff and directions for some layers")
    with progress_bar("Differentiating") as progress:
        report = smoothness_report(
            G,
            ws[:, 0],
            rank=rank or suggested_rank(G),
            num_moments=moments,
            noise_mode=options.noise_mode,
            batch=options.batch,
            progress=progress,
        )
    written = report.write(outdir, {"num": num, "rank": rank or suggested_rank(G), **dataclasses.asdict(options)})
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
