"""Curves of training: what a run's statistics and metrics say, as one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from styleforge import plots
from styleforge.training.stats import read_stats

PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Discriminator's logits", "", (("Loss/scores/real", "real"), ("Loss/scores/fake", "generated"))),
    ("Losses", "", (("Loss/G/loss", "G"), ("Loss/D/loss", "D"))),
    ("Signs of the logits", "", (("Loss/signs/real", "real"), ("Loss/signs/fake", "generated"))),
    ("R1 penalty", "log", (("Loss/r1_penalty", "squared gradient norm"),)),
    ("Path lengths", "", (("Loss/pl_lengths", "mean"),)),
    ("Speed", "log", (("Timing/sec_per_kimg", "seconds per kimg"),)),
)
"""Title, scale of the y axis, and (key of ``stats.jsonl``, name of the curve)."""


def plot_curves(run_dirs: Sequence[str | Path], path: str | Path) -> None:
    """Draws the statistics of runs against the number of real images shown, with their metrics where there are any.

    Args:
        run_dirs: Run directories; with several, each has its own line style.
        path: Target picture.

    Raises:
        ValueError: A run has no statistics yet, or more than four runs.
        OSError: A folder is no run directory, or the picture cannot be written.
    """
    if not 1 <= len(run_dirs) <= 4:
        raise ValueError(f"curves: got {len(run_dirs)} runs, expected 1 to 4, which can be told apart")
    runs = [read_stats(run_dir) for run_dir in run_dirs]
    metrics = [read_metrics(run_dir) for run_dir in run_dirs]
    keys = {key for lines in runs for line in lines for key in line}
    panels = [panel for panel in PANELS if any(key in keys for key, _ in panel[2])]
    names = sorted({name for values in metrics for name in values})
    count = len(panels) + len(names)
    columns = min(count, 3)
    title = Path(run_dirs[0]).resolve().name if len(run_dirs) == 1 else None
    with plots.figure(path, -(-count // columns), columns, title=title) as axes:
        for ax, (name, scale, curves) in zip(axes, panels, strict=False):
            ax.set(title=name, xlabel="kimg", **({"yscale": scale} if scale else {}))
            for k, (key, label) in enumerate(curves):
                for run, lines in enumerate(runs):
                    points = [(line["cur_nimg"] / 1000, line[key]["mean"]) for line in lines if key in line]
                    if points:
                        _draw(ax, points, k, run, label, run_dirs)
            ax.legend(fontsize=8)
        for ax, name in zip(axes[len(panels) :], names, strict=False):
            ax.set(title=name, xlabel="kimg")
            for run, values in enumerate(metrics):
                if name in values:
                    _draw(ax, values[name], 0, run, "", run_dirs)
        for ax in axes[count:]:
            ax.set_axis_off()


def _draw(
    ax: Any, points: list[tuple[float, float]], k: int, run: int, label: str, run_dirs: Sequence[str | Path]
) -> None:
    text = label if len(run_dirs) == 1 else f"{Path(run_dirs[run]).name[:5]} {label}".strip()
    style = {"color": plots.COLOURS[k], "linestyle": ("-", "--", ":", "-.")[run]}
    ax.plot(*zip(*points, strict=True), label=text, marker="o" if len(points) < 40 else None, markersize=2.5, **style)


def read_metrics(run_dir: str | Path) -> dict[str, list[tuple[float, float]]]:
    """The metrics measured in a run: name -> [(kimg, value)], from its ``metric-<name>.jsonl`` files."""
    found: dict[str, dict[float, float]] = {}
    for path in sorted(Path(run_dir).glob("metric-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            digits = "".join(filter(str.isdigit, Path(values.get("snapshot_pkl") or "").stem.rpartition("-")[2]))
            plain = values.get("truncation_psi", 1) == 1 and not values.get("transform")
            if digits and plain:
                for name, value in values["results"].items():
                    found.setdefault(name, {})[float(digits)] = value  # the last measurement of a snapshot counts
    return {name: sorted(points.items()) for name, points in found.items()}
