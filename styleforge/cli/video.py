"""``styleforge video``: an animation that loops through the latent space."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import (
    GroupedCommand,
    GroupedOption,
    PictureOptions,
    Resolution,
    Seeds,
    picture_options,
    progress_bar,
)

if TYPE_CHECKING:
    from torch import Tensor

    from styleforge.latents.paths import LatentPath
    from styleforge.networks import Generator

_model = partial(click.option, cls=GroupedOption, group="Model")
_path = partial(click.option, cls=GroupedOption, group="Path")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge video --network demo --seeds 0-31 --grid 4x2 --trunc 0.7 --output lerp.mp4
  styleforge video --network demo --seeds 3,8,5 --space z --output lerp.gif
  styleforge video --network demo --seeds 3 --num-keyframes 2 --direction directions.safetensors:0 --strength -3:3
  styleforge video --network demo --projected a.npz,b.npz --output morph.webp""",
)
@picture_options
@_model(
    "--seeds", type=Seeds(), metavar="0-31", help="Keyframes, dealt out to the cells of the grid one after another."
)
@_model(
    "--projected",
    "--projected-w",
    "projected",
    metavar="A.npz,B.npz",
    help="Instead of seeds: archives with w or ws, in order, such as projections. Noise maps in them morph, too.",
)
@_path("--grid", type=Resolution(), default="1x1", show_default=True, metavar="WxH", help="Cells across and down.")
@_path(
    "--num-keyframes",
    type=click.IntRange(min=2),
    help="Keyframes of each cell; by default the seeds are shared out. Seeds are used again if they do not suffice.",
)
@_path("--w-frames", type=click.IntRange(min=1), help="Frames from one keyframe to the next; by default 2 seconds.")
@_path(
    "--space",
    type=click.Choice(["w", "z"]),
    default="w",
    show_default=True,
    help="w: a closed cubic spline through the keyframes' w; z: one through their z, which keep their length.",
)
@_output(
    "--output",
    default="lerp.mp4",
    show_default=True,
    metavar="FILE",
    help="The ending decides: .mp4 (needs the video extra), .gif or .webp.",
)
@_output("--fps", type=float, help="Frames per second; by default 60, or 25 for .gif and .webp.")
def video(
    options: PictureOptions,
    seeds: list[int] | None,
    projected: str | None,
    grid: tuple[int, int],
    num_keyframes: int | None,
    w_frames: int | None,
    space: str,
    output: str,
    fps: float | None,
) -> None:
    """Make an animation that passes smoothly through seeds or projections and ends where it began."""
    from styleforge.latents import loop_frames
    from styleforge.video import check_video, write_video

    if (seeds is None) == (projected is None):
        raise click.UsageError("expected one of --seeds and --projected, such as --seeds 0-31")
    if projected is not None and (space == "z" or options.label is not None or options.truncation_psi != 1):
        raise click.UsageError("--projected is already in w, expected neither --space z, --class nor --trunc with it")
    if options.noise_mode == "random":
        raise click.UsageError("--noise-mode random would flicker, expected const or none")
    if fps is None:
        fps = 60 if output.lower().endswith(".mp4") else 25
    check_video(output, fps)
    w_frames = w_frames or max(1, round(2 * fps))
    G = options.load()
    rows, columns = grid
    noise_at = None
    if projected is not None:
        num_keyframes, ws_at, noise_at = _paths_of_files(G, projected, rows * columns, num_keyframes)
    else:
        assert seeds is not None
        num_keyframes, ws_at = _path_of_seeds(G, options, seeds, rows * columns, num_keyframes, space)
    transform, strength_at = options.ws_transform_at(G), _swing(options.strengths, num_keyframes)
    frames = loop_frames(
        G,
        lambda times: transform(
            ws_at(times), strength=strength_at(times)
        ),  # on the way, too: a spline swings beyond its keyframes
        num_keyframes,
        w_frames,
        columns=columns,
        noise_mode=options.noise_mode,
        noise_at=noise_at,
        lod=options.lod,
        batch=options.batch,
    )
    total = num_keyframes * w_frames
    with progress_bar("Filming") as progress:
        write_video(_counted(frames, total, progress), output, fps)
    height, width = G.config.size
    click.echo(f"Wrote {output}: {total} frames of {columns * width}x{rows * height}, {total / fps:.1f} s.")


def _swing(strengths: list[float], period: int) -> Callable[[Tensor], Tensor]:
    """Strengths [M, 1, 1, 1] at times [M]: from the first of the range to the last and back, once in a period."""
    first, last = strengths[0], strengths[-1]

    def strength_at(times: Tensor) -> Tensor:
        swing = (times * (2 * math.pi / period)).cos()
        return ((first + last) / 2 + (first - last) / 2 * swing).float()[:, None, None, None]

    return strength_at


def _counted(frames: Iterable[Tensor], total: int, progress: Callable[[int, int], None]) -> Iterator[Tensor]:
    for done, frame in enumerate(frames):
        progress(done, total)
        yield frame


def _deal(given: Tensor, num_cells: int, num_keyframes: int | None, what: str) -> Tensor:
    """Deals keyframes [N, …] out to the cells, one cell after another: [K, P, …]."""
    import torch

    if num_keyframes is None:
        num_keyframes, left = divmod(len(given), num_cells)
        if left or num_keyframes < 2:
            raise ValueError(
                f"{what}: got {len(given)} for {num_cells} cells, expected the same number for each, 2 or more; "
                f"give {max(2, num_keyframes + 1) * num_cells}, or set --num-keyframes to use some again (--grid)"
            )
    order = torch.arange(num_cells * num_keyframes, device=given.device) % len(given)
    return given[order].unflatten(0, (num_cells, num_keyframes)).transpose(0, 1)


def _path_of_seeds(
    G: Generator, options: PictureOptions, seeds: list[int], num_cells: int, num_keyframes: int | None, space: str
) -> tuple[int, LatentPath]:
    """Number of keyframes, and the path of ws [M, P, L, W]."""
    import torch

    from styleforge.latents import PeriodicArc, PeriodicSpline, generate_ws, map_path, seed_to_z

    c = options.parse_label(G)
    psi, cutoff = options.truncation_psi, options.trunc_cutoff
    if space == "w":
        ws = generate_ws(G, seeds, c=c, truncation_psi=psi, truncation_cutoff=cutoff)
        keyframes = _deal(ws, num_cells, num_keyframes, "seeds")  # [K, P, L, W]
        return len(keyframes), PeriodicSpline(keyframes)
    z = torch.cat([seed_to_z(seed, G.z_dim) for seed in seeds]).to(G.w_avg.device)
    keyframes = _deal(z, num_cells, num_keyframes, "seeds")  # [K, P, Z]
    return len(keyframes), map_path(G, PeriodicArc(keyframes), c=c, truncation_psi=psi, truncation_cutoff=cutoff)


def _paths_of_files(
    G: Generator, paths: str, num_cells: int, num_keyframes: int | None
) -> tuple[int, LatentPath, list[LatentPath] | None]:
    """As `_path_of_seeds`, for ws from files; and the paths of their noise maps [M, P, h·w], if they have any."""
    from styleforge.latents import PeriodicArc, PeriodicSpline, load_projections

    ws, noise = load_projections(paths, G)
    keyframes = _deal(ws, num_cells, num_keyframes, "projected")  # [K, P, L, W]
    if noise is None:
        return len(keyframes), PeriodicSpline(keyframes), None
    flat = (_deal(maps.flatten(1), num_cells, num_keyframes, "projected") for maps in noise)  # [K, P, h·w]
    return len(keyframes), PeriodicSpline(keyframes), [PeriodicArc(one) for one in flat]
