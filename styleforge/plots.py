"""Plots: one look for all figures, drawn without a display and written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styleforge.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2f6db5", "#d1603d", "#3f9b62", "#8a5bb0", "#b8912c", "#4fa3ad", "#c2577f", "#6b6b6b")
"""Of the curves in one plot, in this order."""

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


@contextmanager
def figure(
    path: str | Path,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float] | None = None,
    title: str | None = None,
    dpi: int = 100,
) -> Iterator[list[Axes]]:
    """Gives empty plots to draw on, and writes them to a file when the block ends without an error.

    Args:
        path: Target file; its ending chooses the format: png, svg, pdf.
        rows: Plots below one another.
        columns: Plots beside one another.
        size: (width, height) of the whole in inches; by default 4.2 × 3.2 for each plot.
        title: Above the whole.
        dpi: Pixels per inch.

    Yields:
        rows · columns axes of matplotlib, left to right, top to bottom.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}):
        fig = Figure(figsize=size or (4.2 * columns, 3.2 * rows), dpi=dpi, layout="constrained")
        if title is not None:
            fig.suptitle(title)
        yield list(fig.subplots(rows, columns, squeeze=False).flat)
        with atomic_path(path) as temporary:
            fig.savefig(temporary)
