"""``styleforge analyze phase``: whether details of generated portraits follow the pose."""

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
  styleforge analyze phase --network demo --num 1000 --outdir out
  styleforge analyze phase --network runs/00000-config-a-portraits-gpus1-batch16-gamma10""",
)
@picture_options
@_measure("--num", type=click.IntRange(min=3), default=1000, show_default=True, help="Pictures; seeds from 0.")
@_measure(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    show_default=True,
    help="Of the reader and of the portraits that it learns from.",
)
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for phase.json and phase.png.")
def phase(options: PictureOptions, num: int, seed: int, outdir: str) -> None:
    """Measure whether eyes, mouth and teeth follow the pose of the head, or stick to places of the picture.

    For networks that were trained on the portraits of `styleforge data demo`; of any other the numbers mean nothing.
    A small network, the reader, learns on portraits whose parts look in different directions to read where each looks.
    That takes some minutes, once for each resolution; then the reader is in the cache.
    """
    from styleforge.analysis.factors import reader_config
    from styleforge.analysis.phase import phase_report
    from styleforge.analysis.phase_reader import PhaseReader

    G = options.load()
    ws, config = options.ws(G, range(num)), reader_config(G, seed)
    with progress_bar("Teaching the reader") as progress:
        reader = PhaseReader.train_cached(config, progress=progress)
    with progress_bar("Reading") as progress:
        report = phase_report(
            G,
            ws,
            noise_mode=options.noise_mode,
            lod=options.lod,
            batch=options.batch,
            reader=reader,
            progress=progress,
        )
    written = report.write(outdir, {"num": num, "seed": seed, **dataclasses.asdict(options)})
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
