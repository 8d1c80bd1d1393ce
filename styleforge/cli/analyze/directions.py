"""``styleforge analyze directions``: directions in the latent space, without labels."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, cast

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, PictureOptions, Seeds, picture_options, progress_bar

if TYPE_CHECKING:
    from styleforge.latents.directions import Method, Space

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze directions --network demo --outdir out
  styleforge analyze directions --network demo --method styles --layers 0-3 --seeds 3,8
  styleforge generate --network demo --seeds 0-5 --direction out/directions.safetensors:2 --strength -3:3""",
)
@picture_options
@_measure(
    "--method",
    type=click.Choice(["pca", "styles"]),
    default="pca",
    show_default=True,
    help="pca: principal axes of the latents; styles: closed-form factorization of the styles' weights.",
)
@_measure(
    "--space",
    type=click.Choice(["w", "v"]),
    default="w",
    show_default=True,
    help="Where directions are straight; v is the Gaussianized space, for pca.",
)
@_measure("--layers", metavar="0-3", help="Move the w of these layers only.  [default: all]")
@_measure("--num", type=click.IntRange(min=1), default=10, show_default=True, help="Directions.")
@_measure("--seeds", type=Seeds(), default="0", show_default=True, metavar="0-2", help="Pictures of the strips.")
@_output(
    "--outdir", default="out", show_default=True, metavar="DIR", help="Folder for directions.safetensors, .json, .png."
)
def directions(
    options: PictureOptions, method: str, space: str, layers: str | None, num: int, seeds: list[int], outdir: str
) -> None:
    """Find directions in which pictures change, show a strip of each, and keep them in a file.

    The commands generate, mix and video take the file with --direction. --strength is the range of the strips, by
    default -3:3.
    """
    from styleforge.analysis.directions import direction_report
    from styleforge.latents import find_directions
    from styleforge.latents.sampling import parse_numbers

    if options.direction is not None:
        raise click.UsageError("--direction: expected none, since this command finds directions")
    strengths = options.strength or [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    options = dataclasses.replace(options, strength=None)
    G = options.load()
    chosen = None if layers is None else parse_numbers(layers, name="layers", largest=G.num_ws - 1)
    with progress_bar("Sampling w") as progress:
        found = find_directions(
            G,
            method=cast("Method", method),
            space=cast("Space", space),
            num=min(num, G.w_dim),
            layers=chosen,
            progress=progress,
        )
    report = direction_report(
        G,
        found,
        options.ws(G, seeds),
        strengths,
        noise_mode=options.noise_mode,
        lod=options.lod,
        batch=options.batch,
    )
    settings = {**dataclasses.asdict(options), "method": method, "space": space, "seeds": seeds}
    written = report.write(outdir, settings)
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
