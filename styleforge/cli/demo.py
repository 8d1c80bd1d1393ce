"""``styleforge demo``: the main job, start to end, in a few minutes on a CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import progress_bar

if TYPE_CHECKING:
    import torch

    from styleforge.training import TrainConfig


@click.command(
    epilog="""\b
Examples:
  styleforge demo
  styleforge demo --outdir demo64 --resolution 64 --minutes 60"""
)
@click.option("--outdir", default="demo", show_default=True, help="Where everything is written.")
@click.option("--resolution", type=int, default=32, show_default=True, help="Side of the pictures in pixels.")
@click.option("--minutes", type=float, default=5.0, show_default=True, help="Time for training.")
@click.option("--num", type=int, default=5000, show_default=True, help="Portraits to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Portraits, initial weights and random numbers.")
def demo(outdir: str, resolution: int, minutes: float, num: int, seed: int) -> None:
    """Draw portraits, train a small StyleGAN2 on them, and make pictures and an animation from it."""
    import torch

    from styleforge import images
    from styleforge.checkpoint import load_generator
    from styleforge.data.portraits import write_portraits
    from styleforge.latents.paths import PeriodicSpline, loop_frames
    from styleforge.latents.sampling import generate_images, generate_ws
    from styleforge.training import train
    from styleforge.video import write_video

    folder = Path(outdir)
    data = folder / f"portraits{resolution}-{num}-seed{seed}.zip"
    if not data.exists():
        click.echo(f"1. Drawing {num} portraits of {resolution}×{resolution} pixels into {data}")
        with progress_bar("portraits") as progress:
            write_portraits(data, resolution=resolution, num=num, seed=seed, progress=progress)
    click.echo(f"2. Training for {minutes:g} minutes")
    result = train(demo_config(data, folder, resolution, seed), minutes=minutes)

    click.echo("3. Making pictures")
    G = load_generator(result.run_dir)
    fakes = torch.cat([x for _, _, x in generate_images(G, range(32), truncation_psi=0.8)])
    reals = torch.stack([x for x, _ in _first(data, 32)])
    sheet = torch.cat([images.grid(reals, 8), images.grid(fakes, 8)], dim=2)  # reals left, fakes right
    images.save(sheet, folder / "reals-and-fakes.png")
    ws = generate_ws(G, range(8), truncation_psi=0.8)[:, None]  # [8 keyframes, 1 picture, L, W]
    write_video(loop_frames(G, PeriodicSpline(ws), len(ws), 15), folder / "walk.gif", fps=25)
    click.echo(
        f"""
Real portraits beside generated ones: {folder / "reals-and-fakes.png"}
A walk through the latent space:      {folder / "walk.gif"}
The run:                              {result.run_dir}

What to try next:
  styleforge train --resume {result.run_dir}
  styleforge generate --network {result.run_dir} --seeds 0-35 --trunc 0.7 --outdir {folder / "pictures"}
  styleforge mix --network {result.run_dir} --rows 0-3 --cols 4-9 --styles 0-3 --outdir {folder / "mix"}
  styleforge generate --network demo --seeds 0-35 --outdir {folder / "bundled"}
  styleforge data pack YOUR_PICTURES yours.zip --resolution 64 --transform center-crop"""
    )


def demo_config(data: Path, outdir: Path, resolution: int, seed: int) -> TrainConfig:
    """``auto``'s config for minutes instead of days: a small latent space, many small steps, no extras.

    Small batches show pictures earliest. The path length penalty and style mixing slow the first 20 kimg down, and pay
    only later.
    """
    from styleforge.training import training_preset

    config = training_preset("auto", resolution)
    return dataclasses.replace(
        config,
        generator=dataclasses.replace(config.generator, z_dim=128, w_dim=128, mapping_layers=2),
        data=str(data),
        outdir=str(outdir),
        seed=seed,
        total_kimg=1000,
        batch=8,
        gamma=0.1,
        pl_weight=0.0,
        style_mixing_prob=0.0,
        kimg_per_tick=2,
        snapshot_ticks=5,
        keep=2,
        cache=True,
        workers=0,
    )


def _first(data: Path, num: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    from styleforge.data import ImageDataset

    dataset = ImageDataset(data)
    return [dataset[i] for i in range(min(num, len(dataset)))]
