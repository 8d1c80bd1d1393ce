"""What a projection finds, and the files that it leaves for each target."""
# Shapes: N targets, T steps, F frames, L number of ws, W length of w, C image channels, H W image size.

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from styleforge import images
from styleforge.files import atomic_path
from styleforge.inversion.similarity import psnr, ssim


@dataclass(kw_only=True, slots=True, eq=False)
class Projection:
    """Latents whose pictures come close to targets. All tensors lie on the CPU."""

    ws: Tensor
    """[N, L, W] float32; in the space ``w``, the L are the same."""
    noise: list[Tensor] | None
    """The noise maps that were found, [N, 1, h, w] for each of ``G.synthesis.noise_inputs()``; None: the network's."""
    images: Tensor
    """[N, C, H, W] uint8: the pictures of ws and noise."""
    distances: Tensor
    """[N] float32: from these pictures to the targets."""
    energies: Tensor | None
    """[N] float32: the prior's energies: of the one w in ``w``, summed over layers in ``w+``; None without a prior."""
    history: dict[str, Tensor]
    """[T, N] float32 each, at every step before it was taken, the noise on w included: ``loss``, the sum; and its
    terms without their weights: ``distance``, ``noise`` (autocorrelation) and ``energy``. Not-a-number after an early
    stop."""
    frames: Tensor | None = None
    """[F, N, C, H, W] uint8: pictures on the way, and the last one; None if they were not wanted."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was made, as JSON objects: space, prior, the name and checksum of the distance, the mapping network's
    checksum, seed, and the config."""

    def __len__(self) -> int:
        return len(self.ws)

    def objectives(self) -> Tensor:
        """[N]: the distance and, where there is a prior, its weighted energy: what restarts compare."""
        if self.energies is None:
            return self.distances
        return self.distances + self.settings["config"]["prior_weight"] * self.energies

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Puts projections that were made in the same way behind each other."""
        first = parts[0]

        def joined(name: str, dim: int = 0) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else torch.cat(values, dim)

        noise = None
        if first.noise is not None:
            noise = [torch.cat(maps) for maps in zip(*(part.noise or [] for part in parts), strict=True)]
        return cls(
            ws=joined("ws"),
            noise=noise,
            images=joined("images"),
            distances=joined("distances"),
            energies=joined("energies"),
            history={name: torch.cat([part.history[name] for part in parts], 1) for name in first.history},
            frames=joined("frames", 1),
            settings=first.settings,
        )

    def take_better(self, rows: Sequence[int], other: Self) -> None:
        """Replaces results, in place, by those of another attempt that came closer.

        Args:
            rows: Which of these the other attempt was made for.
            other: That attempt, with one result for each of them.
        """
        for i, row in enumerate(rows):
            if not other.objectives()[i] < self.objectives()[row]:
                continue
            for name in ("ws", "images", "distances", "energies"):
                if getattr(self, name) is not None:
                    getattr(self, name)[row] = getattr(other, name)[i]
            for mine, theirs in zip(self.noise or [], other.noise or [], strict=True):
                mine[row] = theirs[i]
            for name, values in self.history.items():
                values[:, row] = other.history[name][:, i]
            if self.frames is not None and other.frames is not None:
                self.frames[:, row] = other.frames[:, i]


def measures(projection: Projection, targets: Tensor, i: int) -> dict[str, float | None]:
    """How close result i came to its target: distance, PSNR in dB, SSIM, and the energy where there is a prior.

    Args:
        projection: The results.
        targets: Their targets [N, C, H, W] uint8.
        i: Which one.

    Returns:
        Numbers that JSON can hold; a PSNR of infinity is None.
    """
    pair = projection.images[i : i + 1], targets[i : i + 1]
    ratio = float(psnr(*pair))
    numbers = {
        "distance": float(projection.distances[i]),
        "psnr": ratio if math.isfinite(ratio) else None,
        "ssim": float(ssim(*pair)),
    }
    if projection.energies is not None:
        numbers["energy"] = float(projection.energies[i])
    return numbers


def save(
    projection: Projection, targets: Tensor, i: int, folder: str | Path, *, facts: Mapping[str, Any] | None = None
) -> None:
    """Writes ``target.png``, ``projection.png``, ``losses.jsonl`` and, last, ``projection.npz``.

    The archive holds ``w`` [1, L, W], which `styleforge.latents.load_ws` reads; ``noise0``, ``noise1``, …
    [1, 1, h, w], if noise maps were found; and ``settings``, a JSON text.

    Args:
        projection: The results.
        targets: Their targets [N, C, H, W] uint8.
        i: Which one to write.
        folder: Where to; it is made, and older files are replaced.
        facts: What to add to the settings, as JSON objects.

    Raises:
        OSError: A file could not be written.
    """
    folder = Path(folder)
    images.save(targets[i], folder / "target.png")
    images.save(projection.images[i], folder / "projection.png")
    with atomic_path(folder / "losses.jsonl") as temporary:
        lines = (json.dumps({"step": step, **losses}) + "\n" for step, losses in enumerate(_losses(projection, i)))
        temporary.write_text("".join(lines), encoding="utf-8")
    arrays = {"w": projection.ws[i : i + 1].numpy()}
    for k, maps in enumerate(projection.noise or []):
        arrays[f"noise{k}"] = maps[i : i + 1].numpy()
    settings = json.dumps({**projection.settings, **(facts or {})})
    with atomic_path(folder / "projection.npz") as temporary:
        np.savez(temporary, settings=np.array(settings), **arrays)  # type: ignore[arg-type]  # numpy types **kwds oddly


def _losses(projection: Projection, i: int) -> list[dict[str, float]]:
    """The losses of result i at every step that was taken."""
    names = list(projection.history)
    steps = zip(*(projection.history[name][:, i].tolist() for name in names), strict=True)
    return [dict(zip(names, values, strict=True)) for values in steps if not math.isnan(values[0])]
