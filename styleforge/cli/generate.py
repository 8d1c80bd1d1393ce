"""``styleforge generate``: pictures from seeds or from projected latents, to a folder, a zip or shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

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
    from styleforge.shards import SeedPictures, Written

Transform = Callable[["Tensor"], "Tensor"]
"""What happens to ws [n, L, W] before synthesis."""

GRID_LIMIT = 1024
"""From this many pictures on, a grid is made only when asked for: it must fit in memory, and in a viewer."""

_FOLDER_OPTIONS = {
    "outdir": "--outdir",
    "grid": "--grid",
    "columns": "--columns",
    "padding": "--padding",
    "npz": "--npz",
    "projected": "--projected",
}
"""What --dest cannot have beside it."""

_model = partial(click.option, cls=GroupedOption, group="Model")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge generate --network demo --seeds 0-35 --trunc 0.7 --outdir out
  styleforge generate --network demo --seeds 0-35 --compress 0.5 --outdir compressed
  styleforge generate --network runs/00000-auto-photos-gpus1-batch16-gamma0.8 --seeds 0-35,40
  styleforge generate --network animals.safetensors --seeds 0-7 --class all --no-npz
  styleforge generate --network demo --seeds 0-5 --direction out/directions.safetensors:2 --strength -3:3
  styleforge generate --network demo --projected out/face/projection.npz --outdir again
  styleforge generate --network demo --seeds 0-49999 --dest pictures.zip
  torchrun --nproc-per-node 8 -m styleforge.cli.main generate --network X --seeds 0-999999 --dest shards""",
)
@picture_options
@_model("--seeds", type=Seeds(), metavar="0-35,40", help="One picture each; the same z as in the official releases.")
@_model(
    "--projected",
    "--projected-w",
    "--projected_w",
    "projected",
    metavar="A.npz,B.npz",
    help="Instead of seeds: archives with w or ws, such as a projection or an earlier latents.npz. Noise maps in them "
    "are used, too.",
)
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for the files, which are replaced.")
@_output(
    "--format",
    "image_format",
    type=click.Choice(["png", "jpg", "webp"]),
    default="png",
    show_default=True,
    help="Of the single pictures.",
)
@_output(
    "--dest",
    metavar="FILE.zip|DIR",
    help="Instead of --outdir, for many pictures: a dataset in one zip, or a folder of WebDataset shards, shared among "
    "the processes of torchrun. Repeat the command to go on with what was interrupted.",
)
@_output("--shard-size", type=click.IntRange(min=1), help="Pictures of a shard.  [default: 1000]")
@_output("--grid/--no-grid", default=None, help=f"Write grid.png, too; by default for 2 to {GRID_LIMIT} pictures.")
@_output("--columns", type=click.IntRange(min=1), help="Pictures per row of the grid; by default nearly a square.")
@_output("--padding", type=click.IntRange(min=0), default=0, help="White pixels between the pictures of the grid.")
@_output(
    "--npz/--no-npz", default=True, show_default=True, help="Write latents.npz, too: seeds, z, ws, c of the seeds."
)
def generate(
    options: PictureOptions,
    seeds: list[int] | None,
    projected: str | None,
    outdir: str,
    image_format: str,
    dest: str | None,
    shard_size: int | None,
    grid: bool | None,
    columns: int | None,
    padding: int,
    npz: bool,
) -> None:
    """Make pictures from a model: seed0000.png and so on, grid.png and latents.npz; or any number with --dest.

    The same command makes the same files. --class takes a class, a label as numbers, or all: every class of every
    seed.
    """
    if (seeds is None) == (projected is None):
        raise click.UsageError("expected one of --seeds and --projected, such as --seeds 0-35")
    if projected is not None and (options.label is not None or options.truncation_psi != 1):
        raise click.UsageError("--projected is already in w, expected neither --class nor --trunc with it")
    if dest is not None:
        _refuse_folder_options()
        _to_dest(options, seeds or [], dest, shard_size, f".{image_format}")
        return
    if shard_size is not None:
        raise click.UsageError("--shard-size: got no shards, expected --dest DIR with it")

    import numpy as np
    import torch

    from styleforge import images
    from styleforge.files import atomic_path
    from styleforge.latents.gaussian import mapping_sha256

    G = options.load()
    make = partial(_from_seeds, seeds=seeds or []) if projected is None else partial(_from_files, paths=projected)
    transform = options.ws_transform_at(G)
    jobs = {value: make(G, options, partial(transform, strength=value)) for value in options.strengths}
    job = _joined(jobs) if len(jobs) > 1 else jobs.popitem()[1]
    count, folder = len(job.names), Path(outdir)
    if grid is None:
        grid = 2 <= count <= GRID_LIMIT
    npz = npz and seeds is not None  # ws from a file lie there already, with whatever else it keeps

    kept_ws, kept_images, done = [], [], 0
    with progress_bar("Generating") as progress:
        for ws, images_uint8 in job.batches:
            for image in images_uint8:
                images.save(image, folder / f"{job.names[done]}.{image_format}")
                done += 1
            progress(done, count)
            if npz:
                kept_ws.append(ws.cpu())
            if grid:
                kept_images.append(images_uint8)
    written = [f"{count} picture{'s' if count > 1 else ''}"]
    if grid:
        sheet = images.grid(torch.cat(kept_images), columns or job.columns, padding)
        images.save(sheet, folder / "grid.png")
        written.append("grid.png")
    if npz:
        with atomic_path(folder / "latents.npz") as temporary:
            made_by = np.array(mapping_sha256(G))
            np.savez(temporary, ws=torch.cat(kept_ws).numpy(), mapping_sha256=made_by, **job.latents)
        written.append("latents.npz")
    click.echo(f"Wrote {', '.join(written)} to {outdir}.")


def _refuse_folder_options() -> None:
    context = click.get_current_context()
    for name, flag in _FOLDER_OPTIONS.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{flag} does not go with --dest, expected one of them")


def _to_dest(options: PictureOptions, seeds: list[int], dest: str, shard_size: int | None, suffix: str) -> None:
    """Makes the pictures of seeds into a zip or shards, as one of the processes that do."""
    from styleforge import dist
    from styleforge.shards import write_shards, write_zip

    if not dest:
        raise click.UsageError("--dest: got no name, expected a folder, or a name that ends in .zip")
    is_zip = dest.lower().endswith(".zip")
    if is_zip and shard_size is not None:
        raise click.UsageError("--shard-size: got one zip, expected a folder in --dest, which gets shards")
    with dist.Group(dist.pick_device(options.device)):
        with dist.together():
            pictures = _seed_pictures(options, seeds)
        with progress_bar("Generating") as progress:
            if is_zip:
                written = write_zip(pictures, dest, suffix=suffix, progress=progress)
            else:
                written = write_shards(pictures, dest, shard_size=shard_size or 1000, suffix=suffix, progress=progress)
        if dist.rank() == 0:
            click.echo(_told(written, len(pictures), dest))


def _told(written: Written, num: int, dest: str) -> str:
    what = f"{num} picture{'s' if num > 1 else ''}"
    if not written.new:
        return f"Nothing to do: {dest} is complete, with {what}."
    if written.files > 1:
        there = written.files - written.new
        what += f" in {written.files} shards{f', {there} of which were there,' if there else ''}"
    return f"Wrote {what} to {dest}."


def _seed_pictures(options: PictureOptions, seeds: list[int]) -> SeedPictures:
    from styleforge.latents import parse_label
    from styleforge.shards import SeedPictures

    G = options.load()
    labels = parse_label(options.label, G.c_dim)
    return SeedPictures(
        G=G,
        seeds=seeds,
        labels=None if labels is None else labels.reshape(-1, G.c_dim),
        truncation_psi=options.truncation_psi,
        truncation_cutoff=options.trunc_cutoff,
        transform=options.ws_transform(G),
        transform_settings=options.transform_settings(),
        noise_mode=options.noise_mode,
        lod=options.lod,
        batch=options.batch or 0,
    )


@dataclass(kw_only=True, slots=True)
class _Job:
    """What is to be made."""

    names: list[str]
    """The pictures' names, without endings."""
    batches: Iterable[tuple[Tensor, Tensor]]
    """(ws [n, L, W], images_uint8 [n, C, H, W]) each."""
    latents: dict[str, Any] = field(default_factory=dict)
    """Arrays that latents.npz keeps besides ws."""
    columns: int | None = None
    """Pictures per row of the grid; None for nearly a square."""


def _joined(jobs: dict[float, _Job]) -> _Job:
    """The same pictures at several strengths of a direction, a row of the grid for each."""
    import numpy as np

    first = next(iter(jobs.values()))
    return _Job(
        names=[f"{name}-strength{value:+g}" for value, job in jobs.items() for name in job.names],
        batches=itertools.chain.from_iterable(job.batches for job in jobs.values()),
        latents={key: np.concatenate([array] * len(jobs)) for key, array in first.latents.items()},
        columns=len(first.names),
    )


def _from_seeds(G: Generator, options: PictureOptions, transform: Transform, seeds: list[int]) -> _Job:
    import numpy as np
    import torch

    from styleforge.latents import generate_images, parse_label, seed_to_z

    c = parse_label(options.label, G.c_dim)
    names, columns = [f"seed{seed:04d}" for seed in seeds], None
    if c is not None and options.label == "all":
        columns = G.c_dim
        names = [f"{name}-class{k:02d}" for name in names for k in range(G.c_dim)]
        c = c.repeat(len(seeds), 1)  # [N, C]: all classes of the first seed, then of the next
        seeds = [seed for seed in seeds for _ in range(G.c_dim)]
    latents = {"seeds": np.array(seeds), "z": torch.cat([seed_to_z(seed, G.z_dim) for seed in seeds]).numpy()}
    if c is not None:
        latents["c"] = c.expand(len(seeds), -1).numpy()
    batches = generate_images(
        G,
        seeds,
        c=c,
        truncation_psi=options.truncation_psi,
        truncation_cutoff=options.trunc_cutoff,
        transform=transform,
        noise_mode=options.noise_mode,
        lod=options.lod,
        batch=options.batch,
    )
    pairs = ((ws, images_uint8) for _, ws, images_uint8 in batches)
    return _Job(names=names, batches=pairs, latents=latents, columns=columns)


def _from_files(G: Generator, options: PictureOptions, transform: Transform, paths: str) -> _Job:
    from styleforge.latents import default_batch, load_projections, synthesize

    ws, noise = load_projections(paths, G)
    ws = transform(ws)
    batch = options.batch or default_batch(G)
    parts = synthesize(G, ws, noise_mode=options.noise_mode, noise=noise, lod=options.lod, batch=batch)
    return _Job(names=[f"proj{i:02d}" for i in range(len(ws))], batches=zip(ws.split(batch), parts, strict=True))
