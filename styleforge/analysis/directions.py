"""Pictures along directions of the latent space: a strip for each, and how much each changes."""
# Shapes: D number of directions, S number of strengths, N pictures, C H W picture, L number of ws, W length of w.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from styleforge import images
from styleforge.files import write_json
from styleforge.latents import Directions, synthesize
from styleforge.networks import Generator

LABEL_WIDTH = 64
"""Pixels at the left of the sheet, for the number of the direction."""


@dataclass(kw_only=True, slots=True)
class DirectionReport:
    """What directions do to pictures."""

    directions: Directions
    """The directions."""
    strengths: list[float]
    """Columns of the strips."""
    strips: Tensor
    """[D, N, S, C, H, W] uint8."""

    @property
    def changes(self) -> Tensor:
        """[D] float64: root mean square change of a pixel, in steps of 255, per unit of strength between the ends."""
        ends = self.strips[:, :, [0, -1]].double()
        change = (ends[:, :, 1] - ends[:, :, 0]).square().mean([1, 2, 3, 4]).sqrt()
        return change / max(abs(self.strengths[-1] - self.strengths[0]), 1e-12)

    def summary(self) -> str:
        """The report in one sentence."""
        changes, shares = self.changes.tolist(), self.directions.shares
        what = "variance" if self.directions.method == "pca" else "squared style weights"
        return (
            f"{len(changes)} directions have {float(shares.sum()):.0%} of the {what}; one standard deviation along "
            f"them changes a pixel by {min(changes):.1f} to {max(changes):.1f} of 255 steps."
        )

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``directions.safetensors``, ``directions.json`` and the strips ``directions.png``.

        Args:
            folder: Where; made if it is missing.
            settings: What to keep beside the numbers.

        Returns:
            The files.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        file, table, picture = (Path(folder) / f"directions.{end}" for end in ("safetensors", "json", "png"))
        self.directions.save(file)
        columns = zip(
            self.directions.shares.tolist(), self.directions.scales.tolist(), self.changes.tolist(), strict=True
        )
        values = [
            {"index": i, "share": share, "standard_deviation": scale, "pixel_change": change}
            for i, (share, scale, change) in enumerate(columns)
        ]
        settings = {**(settings or {}), "strengths": self.strengths, "layers": self.directions.layers}
        write_json(table, {"summary": self.summary(), "settings": settings, "directions": values})
        images.save(self.sheet(), picture)
        return [file, table, picture]

    def sheet(self) -> Tensor:
        """All strips below one another, [3, H, W] uint8: a row for each direction and picture, with its number."""
        from PIL import Image, ImageDraw

        D, N, S, _, H, _ = self.strips.shape
        cells = self.strips[:, :, :, :3].flatten(0, 2)  # [D·N·S, C, H, W]
        grid = images.grid(images.rgb_view(cells), S, padding=1)  # [3, H, W]
        margin = Image.new("RGB", (LABEL_WIDTH, grid.shape[1]), "white")
        draw = ImageDraw.Draw(margin)
        for i in range(D):
            draw.text((6, (i * N + N / 2) * (H + 1) - 6), f"{i}: {float(self.directions.shares[i]):.1%}", fill="black")
        return torch.cat([torch.from_numpy(np.array(margin)).permute(2, 0, 1), grid], dim=2)


def direction_report(
    G: Generator,
    directions: Directions,
    ws: Tensor,
    strengths: Sequence[float],
    *,
    noise_mode: str = "const",
    lod: float = 0.0,
    batch: int | None = None,
) -> DirectionReport:
    """Makes pictures along every direction.

    Args:
        G: The generator; work is done on its device.
        directions: As from `styleforge.latents.find_directions`.
        ws: [N, L, W], where to start.
        strengths: Two or more, in order.
        noise_mode: ``const``, ``none``, or ``random``, the same for all pictures of a strip.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time.

    Raises:
        ValueError: Fewer strengths.
    """
    if len(strengths) < 2:
        raise ValueError(
            f"strength: got {len(strengths)} strength, expected at least 2, for a strip, such as -3:3 (--strength)"
        )
    seeds = [i for i in range(len(ws)) for _ in strengths]
    strips = []
    for index in range(len(directions.vectors)):
        moved = torch.stack([directions.apply(ws, index, value) for value in strengths], dim=1)  # [N, S, L, W]
        parts = synthesize(G, moved.flatten(0, 1), noise_mode=noise_mode, noise_seeds=seeds, lod=lod, batch=batch)
        strips.append(torch.cat(list(parts)).unflatten(0, moved.shape[:2]))
    return DirectionReport(directions=directions, strengths=list(strengths), strips=torch.stack(strips))
