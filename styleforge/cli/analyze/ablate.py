"""``styleforge analyze ablate``: pictures without single feature maps."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, PictureOptions, Seeds, picture_options

if TYPE_CHECKING:
    from torch import Tensor

    from styleforge.networks import Generator

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze ablate --network runs/00000-config-a-photos-gpus1-batch32-gamma10 --seeds 3,7 --layer b8.conv1
  styleforge analyze ablate --network demo --seeds 0-3 --box 20,20,44,34 --layer b16.conv1 --steps 6
  styleforge analyze ablate --network demo --seeds 0-3 --units 5,12 --layer b8.conv1""",
)
@picture_options
@_measure("--seeds", type=Seeds(), default="0-3", show_default=True, metavar="0-3,7", help="One picture each.")
@_measure("--layer", metavar="NAME", help="Style layer whose units are switched off.  [default: the second of 8×8]")
@_measure("--units", metavar="0-3,7", help="Feature maps to switch off; by default the strongest in the region.")
@_measure(
    "--steps",
    type=click.IntRange(min=1, max=16),
    default=4,
    show_default=True,
    help="How many of the strongest, one more at a time.",
)
@_measure(
    "--box",
    metavar="LEFT,TOP,RIGHT,BOTTOM",
    help="Region of the pictures, in pixels; by default each picture's droplet, and with --units the whole.",
)
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for ablate.json and pictures.")
def ablate(
    options: PictureOptions,
    seeds: list[int],
    layer: str | None,
    units: str | None,
    steps: int,
    box: str | None,
    outdir: str,
) -> None:
    """Switch feature maps off, and see how an artifact moves or recolours.

    Units are ranked by their activation in a region: the droplet that `styleforge analyze droplets` finds, or a box.
    Also drawn: the first picture with other noise, and the styles' biases of networks with AdaIN.
    """
    from styleforge.analysis.ablation_report import ablation_report
    from styleforge.analysis.activations import layer_names
    from styleforge.latents.sampling import parse_numbers

    G = options.load()
    names = layer_names(G, options.lod)
    layer = layer or next(name for name in names[2:] if name.endswith("conv1"))
    report = ablation_report(
        G,
        options.ws(G, seeds),
        layer,
        seeds=seeds,
        units=None if units is None else parse_numbers(units, name="units", largest=max(G.config.channels) - 1),
        steps=steps,
        regions=_region(G, box, whole=units is not None),
        noise_mode=options.noise_mode,
        lod=options.lod,
    )
    written = report.write(outdir, {"seeds": seeds, "box": box, **dataclasses.asdict(options)})
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")


def _region(G: Generator, box: str | None, whole: bool) -> Tensor | None:
    """The region [1, H, W] that was asked for; None for the droplets, or the whole picture if nothing is ranked."""
    from styleforge.analysis.ablation import box_mask, parse_box

    height, width = G.config.size
    if box is not None:
        return box_mask(G, parse_box(box))
    return box_mask(G, (0, 0, width, height)) if whole else None
