"""``styleforge analyze spectra``: power spectra of pictures and layers."""

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
  styleforge analyze spectra --network demo --outdir out
  styleforge analyze spectra --network demo --data portraits.zip --num 1000""",
)
@picture_options
@_measure("--data", metavar="PATH", help="Real pictures to compare with: zip, folder or LMDB.")
@_measure("--num", type=click.IntRange(min=1), default=256, show_default=True, help="Pictures of each; seeds from 0.")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for spectra.json and spectra.png.")
def spectra(options: PictureOptions, data: str | None, num: int, outdir: str) -> None:
    """Measure power spectra of pictures, real and generated, and of every layer's output.

    High frequencies in the layers between compromise shift invariance: progressive growing leads to more of them
    (Figure 16 of the StyleGAN2 paper).
    """
    from styleforge.analysis.spectra import spectra_report
    from styleforge.metrics import open_data
    from styleforge.metrics.pictures import RealPictures

    G = options.load()
    ws, real = options.ws(G, range(num)), None
    if (dataset := open_data(data, G)) is not None:
        pictures, count = RealPictures(dataset), min(num, len(dataset))
        step = pictures.batch
        real = (pictures(range(first, min(first + step, count))) for first in range(0, count, step))
    with progress_bar("Measuring") as progress:
        report = spectra_report(
            G, ws, real=real, noise_mode=options.noise_mode, lod=options.lod, batch=options.batch, progress=progress
        )
    written = report.write(outdir, {"num": num, "data": data, **dataclasses.asdict(options)})
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
