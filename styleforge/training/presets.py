"""Training presets: the rows of Table 1 with their regularisation, and ``auto`` (Karras et al. 2020)."""

from __future__ import annotations

import dataclasses
import math

from styleforge import dist
from styleforge.networks import network_preset, preset_names
from styleforge.training.config import GrowingConfig, TrainConfig


def training_preset_names() -> list[str]:
    """``auto``, and the names of `styleforge.networks.preset_names`."""
    return ["auto", *preset_names()]


def training_preset(
    name: str,
    resolution: int | tuple[int, int],
    *,
    img_channels: int = 3,
    c_dim: int = 0,
    device: str = "auto",
    num_processes: int = 1,
    batch: int | None = None,
    channel_base: int | None = None,
    channel_max: int | None = None,
) -> TrainConfig:
    """The config of a training run.

    Args:
        name: ``config-a`` … ``config-f`` or a cell of Table 2, with the paper's settings; or ``auto``, which picks
            width, gamma, batch and the average's half-life from the resolution and the device, as a start.
        resolution: Side of a square, or (height, width), in pixels.
        img_channels: Image channels.
        c_dim: Length of a label; 0 for unconditional training.
        device: Where ``auto`` should suppose that training runs.
        num_processes: For how many processes ``auto`` picks the batch.
        batch: Images per step; None takes the preset's. ``auto`` chooses gamma and the average's half-life for it.
        channel_base: Channels at resolution r are min(channel_base / r, channel_max); None takes the preset's.
        channel_max: Upper limit of the channels; None takes the preset's.

    Returns:
        A config without data; its fields may be changed.

    Raises:
        ValueError: An unknown name, an empty batch, or a size that the networks cannot make.
    """
    if batch is not None and batch < 1:
        raise ValueError(f"batch: got {batch}, expected 1 or more (--batch)")
    if name == "auto":
        return _auto(resolution, img_channels, c_dim, device, num_processes, batch, channel_base, channel_max)
    if name not in preset_names():
        raise ValueError(f"preset: got {name!r}, expected one of {', '.join(training_preset_names())} (--cfg)")
    generator, discriminator = network_preset(
        name, resolution, img_channels=img_channels, c_dim=c_dim, channel_base=channel_base, channel_max=channel_max
    )
    letter = name.split("-")[1]
    growing = GrowingConfig() if letter in "abcd" else None
    return TrainConfig(
        name=name,
        generator=generator,
        discriminator=discriminator,
        cond=c_dim > 0,
        batch=batch or 32,
        gamma=100.0 if letter == "e" else 10.0,
        r1_interval=0 if letter in "ab" else 16,
        pl_weight=0.0 if letter in "abc" else 2.0,
        g_lr=0.001 if growing else 0.002,
        d_lr=0.001 if growing else 0.002,
        growing=growing,
    )


def _auto(
    resolution: int | tuple[int, int],
    img_channels: int,
    c_dim: int,
    device: str,
    num_processes: int,
    batch: int | None,
    channel_base: int | None,
    channel_max: int | None,
) -> TrainConfig:
    """Config F's architecture at a width and batch that the device can carry."""
    generator, discriminator = network_preset(
        "config-f", resolution, img_channels=img_channels, c_dim=c_dim, channel_base=channel_base
    )
    height, width = generator.size
    pixels = height * width
    if dist.pick_device(device).type == "cpu":
        own_base, own_max = 1024, 128  # about 50 images per second at 64² on 2 cores
        batch = batch or 16 * num_processes
    else:
        # Small pictures need fewer channels; the batch fills a GPU of 16 GB, and needs 4 for its statistics.
        own_base, own_max = (32768 if pixels >= 512**2 else 16384), 512
        per_process = min(max(4096 // math.isqrt(pixels), 4), 32, max(64 // num_processes, 4)) // 4 * 4
        batch = batch or per_process * num_processes
    channel_base = max(own_base, 8 * generator.plan.nominal[-1]) if channel_base is None else channel_base
    channel_max = own_max if channel_max is None else channel_max
    return TrainConfig(
        name="auto",
        generator=dataclasses.replace(generator, channel_base=channel_base, channel_max=channel_max),
        discriminator=dataclasses.replace(discriminator, channel_base=channel_base, channel_max=channel_max),
        cond=c_dim > 0,
        batch=batch,
        gamma=0.0002 * pixels / batch,
        pl_interval=4,
        ema_kimg=batch * 10 / 32,
        ema_rampup=0.05,
        g_lr=0.0025,
        d_lr=0.0025,
    )
