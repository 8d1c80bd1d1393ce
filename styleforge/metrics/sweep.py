"""Metrics along truncation or compression: what quality costs in variety."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from styleforge import plots
from styleforge.files import atomic_path
from styleforge.metrics.records import Measurement, record

AXES = {"trunc": "truncation ψ", "compress": "compression τ"}
"""Name of what is swept -> its name in the plot."""


def write(points: Sequence[tuple[float, Sequence[Measurement]]], kind: str, folder: str | Path) -> list[Path]:
    """Writes ``sweep-<kind>.json`` and the plot ``sweep-<kind>.png``.

    The plot has one panel for each metric, and, where there are precision and recall, one of these two against each
    other.

    Args:
        points: (value, what was measured there), in order.
        kind: One of `AXES`.
        folder: Where to write.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    folder = Path(folder)
    table, picture = folder / f"sweep-{kind}.json", folder / f"sweep-{kind}.png"
    lines = [{kind: value, "metrics": [record(m, None) for m in measured]} for value, measured in points]
    with atomic_path(table) as temporary:
        temporary.write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")
    curves: dict[str, list[float]] = {}
    for _, measured in points:
        for measurement in measured:
            for name, number in measurement.results.items():
                curves.setdefault(name, []).append(number)
    pairs = [
        (name, name.replace("_precision", "_recall"))
        for name in curves
        if name.replace("_precision", "_recall") in curves and "_precision" in name
    ]
    values = [value for value, _ in points]
    count = len(curves) + len(pairs)
    columns = min(count, 3)
    with plots.figure(picture, -(-count // columns), columns) as axes:
        for ax, (name, numbers) in zip(axes, curves.items(), strict=False):
            ax.plot(values, numbers, marker="o", markersize=3)
            ax.set(title=name, xlabel=AXES[kind])
        for ax, (precision, recall) in zip(axes[len(curves) :], pairs, strict=False):
            ax.plot(curves[recall], curves[precision], marker="o", markersize=3)
            for value, x, y in zip(values, curves[recall], curves[precision], strict=True):
                ax.annotate(f"{value:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
            ax.set(title=AXES[kind], xlabel="recall", ylabel="precision")
        for ax in axes[count:]:
            ax.set_axis_off()
    return [table, picture]
