"""Path lengths of single pictures: Figures 4 and 5 of Karras et al. 2020."""
# Shapes: N pictures, C image channels, H W image size.

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from styleforge import dist, images, plots
from styleforge.downloads import cache_dir
from styleforge.files import atomic_path
from styleforge.metrics import draws
from styleforge.metrics.collect import Progress, RowSink, collect
from styleforge.metrics.pictures import GeneratedPictures
from styleforge.metrics.ppl import per_image_path_lengths
from styleforge.metrics.tools import Tools
from styleforge.precision import exact_float32

GRID = 16
"""Pictures in each of the two grids."""


@dataclass(kw_only=True, slots=True)
class PerImageReport:
    """Path lengths of single pictures."""

    lengths: Tensor
    """[N] float64."""
    lowest: Tensor
    """images_uint8 [16, C, H, W]: pictures from the lowest tenth, evenly spread over it."""
    highest: Tensor
    """images_uint8 [16, C, H, W]: pictures from the highest tenth."""
    distance: str
    """What path lengths were measured with."""
    suffix: str
    """``@distance`` where that is not the published one."""
    seed: int
    """Of the pictures."""

    def summary(self) -> str:
        """One line for the terminal."""
        low, middle, high = np.percentile(self.lengths.numpy(), [10, 50, 90])
        return (
            f"per_image_ppl{self.suffix} of {len(self.lengths)} pictures: mean {self.lengths.mean():.5g}, median "
            f"{middle:.5g}, lowest tenth below {low:.5g}, highest above {high:.5g}"
        )

    def write(self, folder: str | Path) -> list[Path]:
        """Writes the numbers as JSON, the histogram, and a grid of each tenth.

        Returns:
            The files.

        Raises:
            OSError: One cannot be written.
        """
        folder = Path(folder)
        numbers, histogram, lowest, highest = (
            folder / f"per-image-ppl{part}" for part in (".json", ".png", "-lowest.png", "-highest.png")
        )
        mean = float(self.lengths.mean())
        values = {"distance": self.distance, "seed": self.seed, "mean": mean, "lengths": self.lengths.tolist()}
        with atomic_path(numbers) as temporary:
            temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
        with plots.figure(histogram, size=(5.5, 3.5)) as (ax,):
            limit = float(np.percentile(self.lengths.numpy(), 99))
            ax.hist(self.lengths.clamp(max=limit).numpy(), bins=60)
            ax.axvline(mean, color=plots.COLOURS[1], label=f"mean {mean:.4g}")
            ax.set(xlabel=f"per-image PPL{self.suffix} (the last bar holds what is above)", ylabel="pictures")
            ax.legend()
        images.save(images.grid(self.lowest, 4), lowest)
        images.save(images.grid(self.highest, 4), highest)
        return [numbers, histogram, lowest, highest]


@torch.no_grad()
@exact_float32()
def per_image_report(
    pictures: GeneratedPictures, tools: Tools, num: int, *, cache: Path | None = None, progress: Progress | None = None
) -> PerImageReport:
    """Measures the path length around each of ``num`` pictures; see `per_image_path_lengths`.

    Like `styleforge.metrics.evaluation.measure` it goes on after a kill, and shares the work under ``torchrun``.

    Args:
        pictures: The pictures, without truncation.
        tools: For the distance.
        num: How many, at least 10.
        cache: As in `measure`.
        progress: As in `measure`.

    Raises:
        ValueError: Too few pictures, or a distance that is not finite.
        OSError: Weights or the cache cannot be read, or a process died.
    """
    if num < 10:
        raise ValueError(f"per-image PPL: got {num} pictures, expected at least 10, for tenths (--per-image-ppl)")
    G, distance = pictures.G, tools.distance_for_paths()
    folder = (cache or cache_dir() / "metrics") / f"generated-{pictures.key[:24]}"
    sink = RowSink(f"{distance.name}-{distance.checksum[:12]}.per-image", num, 1, np.float64)

    def ws_of(indices: list[int]) -> Tensor:
        z = draws.draw_z(pictures.seed, indices, G.z_dim, stream=draws.IMAGES).to(G.w_avg.device)
        ws: Tensor = G.mapping(z, pictures.c(indices))
        return ws

    def work(chunk: range, wanted: set[str]) -> dict[str, Tensor]:
        indices = list(chunk)
        lengths = per_image_path_lengths(
            G, distance, ws_of(indices), seed=pictures.seed, c=pictures.c(indices), indices=indices
        )
        return {sink.output: lengths[:, None]}

    collect(work, [sink], folder, G.w_avg.device, progress)
    lengths = torch.zeros(num, dtype=torch.float64)
    if dist.rank() == 0:  # which has them all
        lengths = torch.from_numpy(np.array(sink.rows[:, 0]))
    lengths = dist.broadcast(lengths, 0, G.w_avg.device)
    if dist.rank() == 0:
        sink.remove(folder)
        with contextlib.suppress(OSError):  # others use it
            folder.rmdir()
    order = lengths.argsort()
    tenth = max(num // 10, 1)
    places = torch.linspace(0, tenth - 1, min(GRID, tenth)).round().long()

    def show(indices: Tensor) -> Tensor:
        parts = [
            images.to_uint8(G.synthesis(ws_of(part), noise_mode="const")).cpu()
            for part in (indices[i : i + pictures.batch].tolist() for i in range(0, len(indices), pictures.batch))
        ]
        return torch.cat(parts)

    lowest, highest = show(order[places]), show(order.flip(0)[places])
    return PerImageReport(
        lengths=lengths,
        lowest=lowest,
        highest=highest,
        distance=distance.name,
        suffix=tools.suffix("ppl"),
        seed=pictures.seed,
    )
