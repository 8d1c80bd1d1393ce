"""The figure of an evaluation of inversion: errors along interpolations (Wulff & Torralba, Figures 2, 7 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from styleforge import plots


def plot_interpolations(rows: Sequence[dict[str, Any]], path: str | Path, distance: str) -> None:
    """Draws the errors of pictures above those of latents, in W to the left and in W+ to the right.

    Args:
        rows: From `styleforge.inversion.evaluation.summarize`.
        path: Target file; its ending chooses the format.
        distance: Name of the distance between pictures.

    Raises:
        OSError: The file could not be written.
    """
    titles = {"image_error": f"distance of pictures ({distance})", "latent_error": "L2 distance of latents"}
    with plots.figure(path, 2, 2) as axes:
        for ax, (name, space) in zip(axes, ((name, s) for name in titles for s in ("w", "w+")), strict=True):
            ax.set(title=f"{space.upper()}, generated pictures", xlabel="t", ylabel=titles[name])
            for row in rows:
                if row["space"] != space or f"interpolation_{name}" not in row:
                    continue
                weight = row["prior_weight"]
                errors = row[f"interpolation_{name}"]
                label = "no prior" if weight is None else f"lambda {weight:g}"
                ax.plot(np.linspace(0, 1, len(errors)), errors, "--" if weight is None else "-", label=label)
            ax.set_ylim(bottom=0)
            if ax.lines:
                ax.legend()
