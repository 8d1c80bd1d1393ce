"""``styleforge analyze resolutions``: how much each resolution adds to the picture."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, PictureOptions, picture_options, progress_bar

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze resolutions --network demo --outdir out
  styleforge analyze resolutions --network runs/00000-auto-photos-gpus1-batch16-gamma0.8 --over-run""",
)
@picture_options
@_measure("--num", type=click.IntRange(min=2), default=1024, show_default=True, help="Random w; seeds from 0.")
@_measure("--over-run", is_flag=True, help="Of a run directory: measure every snapshot, not only the last.")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for resolutions.json and pictures.")
def resolutions(options: PictureOptions, num: int, over_run: bool, outdir: str) -> None:
    """Measure how much each resolution adds to the picture: the standard deviation of its tRGB, in percent of the sum.

    For generators with output skips (configs E and F, preset auto), as in Figure 8 of the StyleGAN2 paper.
    """
    from styleforge import checkpoint, dist
    from styleforge.analysis.resolutions import ResolutionReport, contributions, parts_sheet, require_skips
    from styleforge.convert import load_any

    paths = [checkpoint.resolve(options.network)]
    if over_run:
        if not Path(options.network).is_dir():
            raise click.UsageError(f"--over-run: got {options.network!r}, expected --network with a run directory")
        paths = sorted(paths[0].parent.glob(f"network-snapshot-*{checkpoint.SUFFIX}"))
    device = dist.pick_device(options.device)
    points = []
    for path in paths:
        loaded = load_any(path)
        G = loaded.generator.to(device)
        require_skips(G)
        ws = options.ws(G, range(num))
        with progress_bar(f"Measuring {path.name}") as progress:
            shares = contributions(G, ws=ws, noise_mode=options.noise_mode, batch=options.batch, progress=progress)
        points.append((loaded.info.get("kimg"), shares))
    report = ResolutionReport(points=points, sheet=parts_sheet(G, ws[:6]))
    written = report.write(outdir, {"num": num, **dataclasses.asdict(options)})
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
