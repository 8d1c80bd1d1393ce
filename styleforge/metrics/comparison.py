"""Generators side by side, as in Table 1 of Karras et al. 2020: metrics, speed, parameters."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from styleforge import plots
from styleforge.files import atomic_path
from styleforge.metrics.records import Measurement, record
from styleforge.networks import Generator


@dataclass(kw_only=True, slots=True)
class Row:
    """One generator of a comparison."""

    name: str
    """What it is called."""
    measurements: list[Measurement]
    """Its metrics."""
    images_per_sec: float
    """Speed of synthesis here, from z to picture."""
    parameters: int
    """Numbers that were learned in the generator."""

    @property
    def numbers(self) -> dict[str, float]:
        """Number by name, metrics first."""
        found = {name: value for m in self.measurements for name, value in m.results.items()}
        return found | {"images/s": self.images_per_sec, "parameters (M)": self.parameters / 1e6}


@torch.no_grad()
def images_per_sec(G: Generator, batch: int, lod: float = 0.0, *, seconds: float = 2.0) -> float:
    """Measures how fast a generator makes pictures, for about so many seconds after a warm-up."""
    device = G.w_avg.device
    z, c = torch.zeros(batch, G.z_dim, device=device), torch.zeros(batch, G.c_dim, device=device)

    def make() -> None:
        G(z, c if G.c_dim else None, noise_mode="const", lod=lod)
        if device.type == "cuda":
            torch.cuda.synchronize()

    make()
    start_time, made = time.perf_counter(), 0
    while time.perf_counter() - start_time < seconds:
        make()
        made += batch
    return made / (time.perf_counter() - start_time)


def write(rows: Sequence[Row], folder: str | Path) -> list[Path]:
    """Writes ``comparison.json`` and ``comparison.png``: one panel for each number, one bar for each generator.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    table, picture = Path(folder) / "comparison.json", Path(folder) / "comparison.png"
    lines: list[dict[str, Any]] = [
        {**asdict(row), "measurements": [record(m, None) for m in row.measurements]} for row in rows
    ]
    with atomic_path(table) as temporary:
        temporary.write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")
    names = list(dict.fromkeys(name for row in rows for name in row.numbers))
    columns = min(len(names), 3)
    with plots.figure(picture, -(-len(names) // columns), columns, size=None) as axes:
        for ax, name in zip(axes, names, strict=False):
            values = [row.numbers.get(name, float("nan")) for row in rows]
            bars = ax.barh(range(len(rows)), values, color=plots.COLOURS[: len(rows)])
            ax.bar_label(bars, labels=[f"{value:.4g}" for value in values], padding=3, fontsize=8)
            ax.set_yticks(range(len(rows)), [row.name for row in rows])
            ax.invert_yaxis()
            ax.margins(x=0.2)
            ax.set_title(name)
        for ax in axes[len(names) :]:
            ax.set_axis_off()
    return [table, picture]
