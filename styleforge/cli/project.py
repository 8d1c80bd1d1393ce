"""``styleforge project``: the latents of given pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from styleforge.cli.inversion_options import distance_options, require_full_size, target_options, whiten_option
from styleforge.cli.options import GroupedCommand, GroupedOption, Strengths, load_direction, progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from styleforge.inversion import Projection, Target
    from styleforge.latents import Directions
    from styleforge.networks import Generator

NUM_FRAMES, FPS = 125, 25
"""Length of an animation: 5 seconds."""
OVERVIEW_COLUMNS = 10
"""Targets in a row of grid.png; their projections stand below them."""

_model = partial(click.option, cls=GroupedOption, group="Model")
_target = partial(click.option, cls=GroupedOption, group="Pictures")
_search = partial(click.option, cls=GroupedOption, group="Search")
_output = partial(click.option, cls=GroupedOption, group="Output")
_machine = partial(click.option, cls=GroupedOption, group="Machine")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge project --network demo --target face.png --outdir out
  styleforge project --network demo --target photos --align center-crop --space w+ --prior gaussian
  styleforge project --network demo --target a.png b.png --num-steps 300 --save-video gif
  styleforge project --network demo --target face.png --direction out/directions.safetensors:1
  styleforge generate --network demo --projected out/face/projection.npz
  styleforge video --network demo --projected out/a/projection.npz,out/b/projection.npz --output morph.webp""",
)
@_model(
    "--network",
    required=True,
    metavar="PATH|NAME|URL",
    help="A checkpoint of any kind, a run directory (its last snapshot), a bundled model such as demo, or a URL.",
)
@_model(
    "--class",
    "label",
    metavar="CLASS",
    help="Class of a conditional network, or its label as numbers 0.5,0,1: start at its mean w.  [default: the mean "
    "of all]",
)
@_target("--target", "paths", multiple=True, metavar="PATH...", help="Pictures, folders or zips of pictures.")
@click.argument("more_paths", nargs=-1, metavar="[PATH]...")
@target_options
@_search(
    "--space",
    type=click.Choice(["w", "w+"]),
    default="w",
    show_default=True,
    help="w: one w for all layers (Karras et al. 2020); w+: one for each, closer but less faithful to the network.",
)
@_search(
    "--prior",
    type=click.Choice(["none", "gaussian"]),
    default="none",
    show_default=True,
    help="gaussian keeps w likely (Wulff & Torralba): better to edit, a little less close.",
)
@_search("--prior-weight", type=float, metavar="LAMBDA", help="Weight of the prior.  [default: 1e-4]")
@whiten_option
@_search("--num-steps", type=int, help="Steps of Adam.  [default: 1000 for w, 10000 for w+]")
@_search(
    "--optimize-noise/--fixed-noise",
    default=None,
    help="Whether noise maps are searched as well, or the network's own are kept.  [default: searched for w, fixed "
    "for w+]",
)
@_search("--restarts", type=int, default=0, show_default=True, help="Start again so often, elsewhere; keep the best.")
@_search("--restart-above", type=float, metavar="DISTANCE", help="Start only those again that are farther than this.")
@_search(
    "--plateau",
    type=float,
    metavar="SHARE",
    help="Stop a target when its loss falls by less than this share, such as 0.001, over 25 of the last steps; needs "
    "more than about 200 steps.  [default: never]",
)
@_search("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise.")
@_output(
    "--direction",
    metavar="FILE[:INDEX]",
    help="Move what was found along a direction from `styleforge analyze directions`: edited.png.",
)
@_output(
    "--strength",
    type=Strengths(),
    metavar="FIRST:LAST[:STEP]",
    help="How far, in standard deviations of w.  [default: -3:3]",
)
@distance_options("lpips", "random-vgg", "pixel+discriminator")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Gets a folder for each target.")
@_output("--save-video", type=click.Choice(["mp4", "gif", "webp"]), help="Animate the search, beside its target.")
@_machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@_machine(
    "--batch",
    type=click.IntRange(min=1),
    help="Targets at a time. Memory and speed depend on it, and results a little.  [default: by their size]",
)
def project(
    network: str,
    label: str | None,
    paths: tuple[str, ...],
    more_paths: tuple[str, ...],
    fit: dict[str, Any],
    space: Literal["w", "w+"],
    prior: str,
    prior_weight: float | None,
    whiten: bool,
    num_steps: int | None,
    optimize_noise: bool | None,
    restarts: int,
    restart_above: float | None,
    plateau: float | None,
    seed: int,
    direction: str | None,
    strength: list[float] | None,
    tools: dict[str, Any],
    outdir: str,
    save_video: str | None,
    device: str,
    batch: int | None,
) -> None:
    """Find the latents whose pictures come closest to given ones.

    Each target gets a folder, named by its file: target.png, projection.png, projection.npz (w, noise maps and
    settings, for --projected of other commands) and losses.jsonl. results.json has the numbers of all, grid.png shows
    the targets above their projections. What is finished is on disk when the command is interrupted.
    """
    from styleforge import dist
    from styleforge import inversion as inv
    from styleforge.convert import load_any
    from styleforge.latents import GaussianLatents, parse_label
    from styleforge.video import check_video

    targets_from = [*paths, *more_paths]
    if not targets_from:
        raise click.UsageError("expected pictures to project, such as --target face.png")
    if save_video is not None:
        check_video(f"projection.{save_video}", FPS)
    if strength is not None and direction is None:
        raise click.UsageError("--strength: got no direction to go along, expected --direction FILE with it")
    if prior_weight is not None and prior == "none":
        raise click.UsageError("--prior-weight: got no prior to weigh, expected --prior gaussian with it")
    if restart_above is not None and not restarts:
        raise click.UsageError("--restart-above: got no restarts, expected --restarts with it, such as --restarts 2")
    config = inv.ProjectionConfig.for_space(space)
    config = dataclasses.replace(
        config,
        num_steps=config.num_steps if num_steps is None else num_steps,
        optimize_noise=config.optimize_noise if optimize_noise is None else optimize_noise,
        prior_weight=config.prior_weight if prior_weight is None else prior_weight,
        whiten=whiten,
        restarts=restarts,
        restart_above=restart_above,
        plateau=plateau,
    )
    loaded = load_any(network)
    require_full_size(loaded)
    G = loaded.generator.to(dist.pick_device(device))
    c = None if label is None else parse_label(label, G.c_dim)
    if c is not None and c.ndim == 2:
        raise ValueError("class: got 'all', expected one class or label, or none for the mean of all (--class)")
    targets = inv.read_targets(targets_from, G, **fit)
    metric = inv.choose_distance(**tools, D=loaded.D)
    gaussian = None
    if prior == "gaussian":
        with progress_bar("Measuring the latent space") as progress:
            gaussian = GaussianLatents.fit_cached(G, progress=progress)

    directions, index = load_direction(direction, G)
    edit = None
    if directions is not None:
        directions.apply(G.w_avg.expand(1, G.num_ws, -1), index, 0.0)  # whether there is such a one, before any work
        edit = partial(_edit, G, directions, index, strength or [float(value) for value in range(-3, 4)])
    writer = _Writer(
        targets=targets, folder=Path(outdir), save_video=save_video, network=network, label=label, edit=edit
    )
    try:
        with progress_bar("Projecting") as progress:
            inv.project(
                G,
                writer.images,
                space=space,
                prior=gaussian,
                distance=metric,
                seed=seed,
                c=c,
                config=config,
                batch=batch,
                num_frames=NUM_FRAMES if save_video else 0,
                progress=progress,
                on_pass=writer.write,
            )
    finally:  # interrupted or not
        writer.report(metric.name)
    if metric.stand_in:
        click.echo(f"Note: {metric.name} stands in for LPIPS; its distances compare among themselves.", err=True)


def _edit(G: Generator, directions: Directions, index: int, strengths: list[float], part: Projection, i: int) -> Tensor:
    """The i-th of some projections [S, C, H, W], moved along a direction by each of S strengths."""
    import torch

    from styleforge.latents import synthesize

    ws = torch.cat([directions.apply(part.ws[i : i + 1], index, strength) for strength in strengths])  # [S, L, W]
    noise = None if part.noise is None else [maps[i : i + 1] for maps in part.noise]
    return torch.cat(list(synthesize(G, ws, noise=noise)))


class _Writer:
    """Puts results into files as they come.

    Args:
        targets: All that are projected.
        folder: Where to.
        save_video: Ending of the animations, if there are to be any.
        network: For the record.
        label: For the record.
        edit: Makes pictures [S, C, H, W] of the i-th of some projections, for a strip; None for none.
    """

    def __init__(
        self,
        *,
        targets: list[Target],
        folder: Path,
        save_video: str | None,
        network: str,
        label: str | None,
        edit: Callable[[Projection, int], Tensor] | None = None,
    ) -> None:
        import torch

        self.targets, self.folder, self.save_video, self.edit = targets, folder, save_video, edit
        self.images = torch.stack([target.image for target in targets])  # [N, C, H, W] uint8
        self.facts = {"network": network, "class": label}
        self.rows: list[dict[str, Any]] = []
        self.pictures: list[Tensor] = []

    def write(self, first: int, part: Projection) -> None:
        """Writes the results of one pass, whose first target has this number."""
        from styleforge import images
        from styleforge.files import write_json
        from styleforge.inversion import measures, save

        wanted = self.images[first : first + len(part)]
        for i, target in enumerate(self.targets[first : first + len(part)]):
            folder = self.folder / target.name
            numbers = measures(part, wanted, i)
            save(part, wanted, i, folder, facts={**self.facts, "target": target.source, **numbers})
            if self.edit is not None:
                strip = self.edit(part, i)
                images.save(images.grid(strip, len(strip)), folder / "edited.png")
            if part.frames is not None:
                self._write_video(folder, target.image, part.frames[:, i])
            self.rows.append({"name": target.name, "target": target.source, **numbers})
            self.pictures.append(part.images[i])
        write_json(self.folder / "results.json", {**self.facts, **part.settings, "targets": self.rows})

    def _write_video(self, folder: Path, target: Tensor, frames: Tensor) -> None:
        import torch

        from styleforge import images
        from styleforge.video import write_video

        pairs = (images.grid(torch.stack([target, frame]), 2) for frame in frames)
        write_video(pairs, folder / f"projection.{self.save_video}", FPS)

    def report(self, distance: str) -> None:
        """Writes the overview, and prints a table, of what is finished."""
        import torch
        from rich.console import Console
        from rich.table import Table

        from styleforge import images

        done = len(self.rows)
        if not done:
            return
        columns = min(done, OVERVIEW_COLUMNS)
        cells: list[Tensor] = []
        for i in range(0, done, columns):  # a row of targets, a row of projections
            for row in (self.images[i : min(i + columns, done)], torch.stack(self.pictures[i : i + columns])):
                cells.extend([*row, *[torch.full_like(row[0], 255)] * (columns - len(row))])
        images.save(images.grid(torch.stack(cells), columns), self.folder / "grid.png")

        table = Table(box=None, pad_edge=False)
        titles = {"distance": distance, "psnr": "PSNR", "ssim": "SSIM", "energy": "energy"}
        names = [name for name in titles if name in self.rows[0]]
        table.add_column("target")
        for name in names:
            table.add_column(titles[name], justify="right")
        for values in self.rows:
            table.add_row(values["name"], *("inf" if values[name] is None else f"{values[name]:.4g}" for name in names))
        Console().print(table)
        click.echo(f"Wrote {done} of {len(self.targets)} projections and grid.png to {self.folder}.")
