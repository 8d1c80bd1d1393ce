"""``styleforge mix``: the style-mixing matrix (Karras et al. 2019, Figure 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import (
    GroupedCommand,
    GroupedOption,
    PictureOptions,
    Seeds,
    picture_options,
    progress_bar,
)

if TYPE_CHECKING:
    from torch import Tensor

    from styleforge.networks import Generator

_mix = partial(click.option, cls=GroupedOption, group="Mix")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge mix --network demo --rows 85,100,75 --cols 55,821,1789 --trunc 0.7 --outdir mixed
  styleforge mix --network demo --rows 0-3 --cols 4-9 --styles 6-9
  styleforge mix --network demo --projected out/a/projection.npz,out/b/projection.npz --cols 0-3""",
)
@picture_options
@_mix("--rows", "--row-seeds", "row_seeds", type=Seeds(), metavar="0-3,7", help="Seeds of the rows.")
@_mix("--cols", "--col-seeds", "col_seeds", type=Seeds(), metavar="0-3,7", help="Seeds of the columns.")
@_mix(
    "--projected",
    "--projected-w",
    "projected",
    metavar="A.npz,B.npz",
    help="Instead of --rows: archives with w or ws, such as projections, with their noise maps. Without --cols they "
    "are the columns, too.",
)
@_mix(
    "--styles",
    "--col-styles",
    metavar="0-6",
    help="Layers that take the column's style, from 0, coarse, to fine; by default 0-6, in a small network fewer.",
)
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for the files, which are replaced.")
def mix(
    options: PictureOptions,
    row_seeds: list[int] | None,
    col_seeds: list[int] | None,
    projected: str | None,
    styles: str | None,
    outdir: str,
) -> None:
    """Make a matrix of pictures: each is its row's, with some styles of its column's.

    Writes grid.png, with the sources' own pictures in the first column and row, and each picture alone: 85-55.png is
    row 85 with styles of column 55, 85-85.png is seed 85 itself. Projections are called proj00, proj01 and so on.
    """
    import torch

    from styleforge import images
    from styleforge.latents import mix_matrix, synthesize
    from styleforge.latents.sampling import parse_numbers

    if (row_seeds is None) == (projected is None):
        raise click.UsageError("expected one of --rows and --projected, such as --rows 0-3")
    if col_seeds is None and projected is None:
        raise click.UsageError("expected --cols with --rows, such as --cols 4-9")
    if col_seeds is None and (options.label is not None or options.truncation_psi != 1):
        raise click.UsageError("--projected is already in w, expected neither --class nor --trunc without --cols")
    G = options.load()
    layers = list(range(min(7, G.num_ws - 1)))
    if styles is not None:
        layers = parse_numbers(styles, name="styles", largest=G.num_ws - 1)
    rows = _from_files(G, projected) if projected is not None else _from_seeds(G, options, row_seeds or [])
    cols = rows if col_seeds is None else _from_seeds(G, options, col_seeds)

    # The cells of the grid, row by row, without the empty corner: the columns' pictures, then each row's and its mixes.
    transform = options.ws_transform(G)  # each layer on its own, so that it could follow the mixing as well
    row_ws, col_ws = transform(rows.ws), transform(cols.ws)
    mixed = mix_matrix(row_ws, col_ws, layers)  # [R, K, L, W]
    cells = torch.cat([col_ws, torch.cat([row_ws[:, None], mixed], dim=1).flatten(0, 1)])
    names = [(name, name) for name in cols.names]
    for row in rows.names:
        names += [(row, row), *((row, col) for col in cols.names)]
    width = 1 + len(cols.names)
    noise = None
    if projected is not None:  # a mix has the noise of its row
        pairs = zip(rows.noise, cols.noise, strict=True)
        noise = [torch.cat([col, row.repeat_interleave(width, dim=0)]) for row, col in pairs]

    pictures: list[torch.Tensor] = []
    parts = synthesize(
        G,
        cells,
        noise_mode=options.noise_mode,
        noise_seeds=cols.seeds + [seed for seed in rows.seeds for _ in range(width)],
        noise=noise,
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
    images.save(images.grid(torch.stack([corner, *pictures]), width), Path(outdir) / "grid.png")
    count = len(set(names))
    click.echo(f"Wrote {count} pictures and grid.png to {outdir}.")


@dataclass(kw_only=True, slots=True)
class _Sources:
    """What is mixed: the rows or the columns."""

    names: list[str]
    """As they stand in file names."""
    seeds: list[int]
    """Of the noise, if that is random."""
    ws: Tensor
    """[n, L, W]."""
    noise: list[Tensor]
    """[n, 1, h, w] for each noise input, if that is not random."""


def _from_seeds(G: Generator, options: PictureOptions, seeds: list[int]) -> _Sources:
    from styleforge.latents import generate_ws

    psi, cutoff = options.truncation_psi, options.trunc_cutoff
    ws = generate_ws(G, seeds, c=options.parse_label(G), truncation_psi=psi, truncation_cutoff=cutoff)
    own = _own_noise(G, len(seeds))
    return _Sources(names=[str(seed) for seed in seeds], seeds=seeds, ws=ws, noise=own)


def _from_files(G: Generator, paths: str) -> _Sources:
    from styleforge.latents import load_projections

    ws, noise = load_projections(paths, G)
    device, num = G.w_avg.device, len(ws)
    return _Sources(
        names=[f"proj{i:02d}" for i in range(num)],
        seeds=list(range(num)),
        ws=ws.to(device),
        noise=_own_noise(G, num) if noise is None else [maps.to(device) for maps in noise],
    )


def _own_noise(G: Generator, num: int) -> list[Tensor]:
    """The network's own noise maps, as if every picture had its copies; they take no memory."""
    return [noise_input.const[None, None].expand(num, 1, -1, -1) for noise_input in G.synthesis.noise_inputs()]
