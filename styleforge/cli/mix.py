"""``styleforge mix``: the style-mixing matrix (Karras et al. 2019, Figure 3)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from styleforge.cli.options import (
    GroupedCommand,
    GroupedOption,
    PictureOptions,
    Seeds,
    picture_options,
    progress_bar,
)

_mix = partial(click.option, cls=GroupedOption, group="Mix")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge mix --network demo --rows 85,100,75 --cols 55,821,1789 --trunc 0.7 --outdir mixed
  styleforge mix --network demo --rows 0-3 --cols 4-9 --styles 6-9""",
)
@picture_options
@_mix("--rows", "--row-seeds", "row_seeds", type=Seeds(), required=True, metavar="0-3,7", help="Seeds of the rows.")
@_mix("--cols", "--col-seeds", "col_seeds", type=Seeds(), required=True, metavar="0-3,7", help="Seeds of the columns.")
@_mix(
    "--styles",
    "--col-styles",
    metavar="0-6",
    help="Layers that take the column's style, from 0, coarse, to fine; by default 0-6, in a small network fewer.",
)
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for the files, which are replaced.")
def mix(options: PictureOptions, row_seeds: list[int], col_seeds: list[int], styles: str | None, outdir: str) -> None:
    """Make a matrix of pictures: each is its row's, with some styles of its column's.

    Writes grid.png, with the seeds' own pictures in the first column and row, and each picture alone: 85-55.png is
    row 85 with styles of column 55, 85-85.png is seed 85 itself.
    """
    import torch

    from styleforge import images
    from styleforge.latents import generate_ws, mix_matrix, synthesize
    from styleforge.latents.sampling import parse_numbers

    G = options.load()
    c = options.parse_label(G)
    layers = list(range(min(7, G.num_ws - 1)))
    if styles is not None:
        layers = parse_numbers(styles, name="styles", largest=G.num_ws - 1)

    # The cells of the grid, row by row, without the empty corner: the columns' pictures, then each row's and its mixes.
    seeds = [*row_seeds, *col_seeds]
    ws = generate_ws(
        G, seeds, c=c, truncation_psi=options.truncation_psi, truncation_cutoff=options.trunc_cutoff
    )  # [R + K, L, W]
    ws = options.ws_transform(G)(ws)  # each layer on its own, so that it could follow the mixing as well
    row_ws, col_ws = ws.split([len(row_seeds), len(col_seeds)])
    mixed = mix_matrix(row_ws, col_ws, layers)  # [R, K, L, W]
    cells = torch.cat([col_ws, torch.cat([row_ws[:, None], mixed], dim=1).flatten(0, 1)])
    names = [(seed, seed) for seed in col_seeds]
    for row in row_seeds:
        names += [(row, row), *((row, col) for col in col_seeds)]

    pictures: list[torch.Tensor] = []
    parts = synthesize(
        G,
        cells,
        noise_mode=options.noise_mode,
        noise_seeds=[row for row, _ in names],
        lod=options.lod,
        batch=options.batch,
    )
    with progress_bar("Mixing") as progress:
        for images_uint8 in parts:
            for image in images_uint8:
                row, col = names[len(pictures)]
                images.save(image, Path(outdir) / f"{row}-{col}.png")
                pictures.append(image)
            progress(len(pictures), len(names))
    corner = torch.full_like(pictures[0], 255)
    images.save(images.grid(torch.stack([corner, *pictures]), len(col_seeds) + 1), Path(outdir) / "grid.png")
    count = len(set(names))
    click.echo(f"Wrote {count} pictures and grid.png to {outdir}.")
