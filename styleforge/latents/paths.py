"""Loops through the latent space, as smooth at the keyframes as between them."""
# Shapes: K keyframes, M moments, P pictures of a frame, Z length of z, L number of ws, W length of w.

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from styleforge import images
from styleforge.latents.sampling import default_batch, synthesize
from styleforge.networks import Generator

LatentPath = Callable[[Tensor], Tensor]
"""Positions [M, …] at times [M]; a closed one has a period: its number of keyframes."""


class PeriodicSpline:
    """The closed cubic spline through points: at time k it is at point k, and after the last it returns to the first.

    Position, velocity and acceleration are continuous everywhere. Two points make a swing to and fro, one a rest.

    Args:
        points: [K, …] float.
    """

    def __init__(self, points: Tensor) -> None:
        self.points = points
        # Equal accelerations on both sides of each point: v[k-1] + 4 v[k] + v[k+1] = 3 (p[k+1] - p[k-1]). Indices
        # wrap around, so the Fourier transform over k turns the equations into one division each.
        angles = 2 * math.pi * torch.fft.rfftfreq(len(points), dtype=torch.float64)
        factors = 6j * angles.sin() / (4 + 2 * angles.cos())
        waves = torch.fft.rfft(points.detach().cpu().double(), dim=0)
        waves = waves * factors.reshape(-1, *[1] * (points.ndim - 1))
        self.velocities = torch.fft.irfft(waves, n=len(points), dim=0).to(points)  # [K, …]

    def __call__(self, times: Tensor) -> Tensor:
        """Positions [M, …] at times [M], of period K: cubic Hermite polynomials between neighbours."""
        K, moments = len(self.points), [-1] + [1] * (self.points.ndim - 1)
        k = times.floor()
        t = (times - k).to(self.points).reshape(moments)
        start, end = (k.long() + step for step in (0, 1))
        start, end = start % K, end % K
        return (
            (1 + 2 * t) * (1 - t) ** 2 * self.points[start]
            + t**2 * (3 - 2 * t) * self.points[end]
            + t * (1 - t) ** 2 * self.velocities[start]
            + t**2 * (t - 1) * self.velocities[end]
        )


class PeriodicArc:
    """`PeriodicSpline` for z: directions and lengths run on splines of their own, so that z keeps its length.

    Unlike slerp from point to point, it has no jerk at the points.

    Args:
        points: [K, …, Z] float, no zero vectors.
    """

    def __init__(self, points: Tensor) -> None:
        lengths = points.norm(dim=-1, keepdim=True)
        self.direction, self.length = PeriodicSpline(points / lengths), PeriodicSpline(lengths)

    def __call__(self, times: Tensor) -> Tensor:
        """Positions [M, …, Z] at times [M], of period K."""
        direction = self.direction(times)
        return direction / direction.norm(dim=-1, keepdim=True) * self.length(times)


def map_path(
    G: Generator,
    z_at: LatentPath,
    *,
    c: Tensor | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> LatentPath:
    """Sends a path of z [M, P, Z] through the mapping network: a path of ws [M, P, L, W].

    Args:
        G: The generator; ``z_at`` gives z on its device.
        z_at: The path, such as a `PeriodicArc` through z [K, P, Z].
        c: The label [C]; None for an unconditional network.
        truncation_psi: 1 leaves w, 0 gives the mean w.
        truncation_cutoff: Number of layers that are truncated; None for all.
    """

    @torch.no_grad()
    def ws_at(times: Tensor) -> Tensor:
        z = z_at(times)  # [M, P, Z]
        labels = None if c is None else c.to(z.device).expand(len(z) * z.shape[1], -1)  # [M·P, C]
        ws: Tensor = G.mapping(
            z.flatten(0, 1), labels, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff
        )  # [M·P, L, W]
        return ws.unflatten(0, z.shape[:2])

    return ws_at


@torch.no_grad()
def loop_frames(
    G: Generator,
    ws_at: LatentPath,
    num_keyframes: int,
    frames_per_keyframe: int,
    *,
    columns: int = 1,
    noise_mode: str = "const",
    noise_at: Sequence[LatentPath] | None = None,
    lod: float = 0.0,
    batch: int | None = None,
) -> Iterator[Tensor]:
    """The frames of a loop: the frame after the last would equal the first.

    Args:
        G: The generator; work is done on its device.
        ws_at: ws [M, P, L, W] of P pictures at times [M], of period ``num_keyframes``, such as a `PeriodicSpline`
            through ws [K, P, L, W].
        num_keyframes: Number of keyframes K.
        frames_per_keyframe: Frames from one keyframe to the next.
        columns: Pictures per row of a frame.
        noise_mode: ``const`` or ``none``; ``random`` would flicker.
        noise_at: For each noise input, maps [M, P, h·w] at times [M], in place of the fixed ones of ``const``; a
            `PeriodicArc` keeps them as loud as noise should be.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time; None for `default_batch`.

    Yields:
        num_keyframes · frames_per_keyframe frames [C, H, W] uint8 on the CPU: the P pictures in rows.
    """
    times = torch.arange(num_keyframes * frames_per_keyframe, dtype=torch.float64) / frames_per_keyframe
    batch = batch or default_batch(G)
    num_pictures = ws_at(times[:1]).shape[1]
    sizes = [noise_input.const.shape for noise_input in G.synthesis.noise_inputs()]
    for moments in times.split(max(1, batch // num_pictures)):
        ws = ws_at(moments).flatten(0, 1)  # [M·P, L, W]
        noise = None
        if noise_at is not None:
            paths = zip(noise_at, sizes, strict=True)
            noise = [at(moments).reshape(-1, 1, *size) for at, size in paths]  # [M·P, 1, h, w]
        parts = synthesize(G, ws, noise_mode=noise_mode, noise=noise, lod=lod, batch=batch)
        for cells in torch.cat(list(parts)).split(num_pictures):  # [P, C, H, W]
            yield images.grid(cells, columns)
