"""Random numbers of training, one stream for each sample.

Every sample's numbers follow from (seed, phase, number of the sample) alone. So nothing has to be stored to go on
exactly where a run stopped, and one process or many draw the same.
"""
# Shapes: N batch, Z length of z, L number of ws, C image channels, H W image size.

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from styleforge.networks import Generator


@dataclass(kw_only=True, slots=True)
class Draws:
    """What a batch of generated images needs."""

    z: Tensor
    """[2, N, Z]: the latents, and those that are mixed in."""
    mix: Tensor
    """[N] in [0, 1): decides whether a sample mixes."""
    crossover: Tensor
    """[N] in [0, 1): decides at which layer."""
    noise: list[Tensor]
    """[N, 1, h, w] for each noise input."""
    y: Tensor | None
    """[N, C, H, W]: random images of the path length penalty."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything that can be printed."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draw(
    G: Generator, samples: Iterable[int], *, seed: int, phase: str, lod: float, device: torch.device, images: bool
) -> Draws:
    """Draws the random numbers of a batch.

    Args:
        G: The generator whose shapes count.
        samples: Numbers of the samples, unique within a run and phase.
        seed: The run's seed.
        phase: The training phase's name.
        lod: Level of detail; noise is drawn for the layers that take part.
        device: Where to draw; CPU and GPU draw different numbers.
        images: Whether to draw random images ``y``.
    """
    sizes = [tuple(noise.const.shape) for noise in G.synthesis.noise_inputs(lod)]
    pixels = [height * width for height, width in sizes]
    image_shape = (G.img_channels, *G.config.size)
    num_y = image_shape[0] * image_shape[1] * image_shape[2] if images else 0
    generator = torch.Generator(device)
    normals, uniforms = [], []
    for sample in samples:
        generator.manual_seed(seed_of(seed, phase, sample))
        uniforms.append(torch.rand(2, generator=generator, device=device))
        total = 2 * G.z_dim + sum(pixels) + num_y
        normals.append(torch.randn(total, generator=generator, device=device))
    N = len(normals)
    z, *maps, y = torch.stack(normals).split([2 * G.z_dim, *pixels, num_y], dim=1)
    mix, crossover = torch.stack(uniforms).unbind(1)
    return Draws(
        z=z.reshape(N, 2, G.z_dim).transpose(0, 1),
        mix=mix,
        crossover=crossover,
        noise=[noise.reshape(N, 1, *size) for noise, size in zip(maps, sizes, strict=True)],
        y=y.reshape(N, *image_shape) if images else None,
    )


def mix_styles(ws: Tensor, ws_other: Tensor, draws: Draws, probability: float, num_active: int) -> Tensor:
    """Style mixing regularisation (Karras et al. 2019, Section 3.1).

    Args:
        ws: [N, L, W].
        ws_other: [N, L, W]: what replaces ws from the crossover on.
        draws: The batch's random numbers.
        probability: Share of the samples that mix.
        num_active: Layers that take part at this level of detail; the crossover lies within them.

    Returns:
        [N, L, W].
    """
    L = ws.shape[1]
    crossover = 1 + (draws.crossover * (num_active - 1)).long()  # [N], uniform over 1 … num_active - 1
    crossover = torch.where(draws.mix < probability, crossover, L)
    keeps = torch.arange(L, device=ws.device) < crossover[:, None]  # [N, L]
    return torch.where(keeps[:, :, None], ws, ws_other)
