"""The figure of an attribution: histograms of distances (Karras et al. 2020, Figure 9), and ROC curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from styleforge import plots
from styleforge.inversion.calibration import Calibration

BINS = 30


def plot_calibrations(calibrations: Mapping[str, Calibration], path: str | Path, distance: str) -> None:
    """Draws, for each network, how far generated and real pictures lie from their projections, and the ROC curve.

    Args:
        calibrations: By the networks' names.
        path: Target file; its ending chooses the format.
        distance: Name of the distance.

    Raises:
        OSError: The file could not be written.
    """
    with plots.figure(path, len(calibrations), 2) as axes:
        for (name, one), histogram, curve in zip(calibrations.items(), axes[::2], axes[1::2], strict=True):
            largest = max(*one.generated, *one.real) or 1.0
            for values, label in ((one.generated, "generated"), (one.real, "real")):
                histogram.hist(values, bins=BINS, range=(0, largest), alpha=0.7, label=f"{label} ({len(values)})")
            histogram.axvline(one.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
            histogram.set(title=name, xlabel=f"distance to the projection ({distance})", ylabel="pictures")
            histogram.legend()
            false_positive, true_positive = one.roc()[1:]
            curve.step(false_positive, true_positive, where="post", clip_on=False)
            curve.plot([0, 1], [0, 1], color="#b0b0b0", linestyle=":", linewidth=1)
            at = np.mean(np.array(one.real) <= one.threshold), np.mean(np.array(one.generated) <= one.threshold)
            curve.plot(*at, "o", color="black", clip_on=False)
            curve.set(
                title=f"AUC {one.auc:.3f}, error {one.error:.1%}",
                xlabel="real taken for generated",
                ylabel="generated recognised",
            )
