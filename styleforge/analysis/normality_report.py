"""How normal latents are in W and in V, in numbers and pictures (Wulff & Torralba, Figure 1)."""
# Shapes: N samples, D dimensions, C length of a label, M number of labels.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from styleforge import plots
from styleforge.files import write_json
from styleforge.latents import MarginalNormality, marginal_normality
from styleforge.networks import Generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 4000
"""Samples of the scatter plots."""
BINS = 80
"""Of the histograms."""


@dataclass(kw_only=True, slots=True)
class NormalityReport:
    """The marginal distributions of W and V, of the same samples."""

    w: MarginalNormality
    """Of W."""
    v: MarginalNormality
    """Of V, where the mapping network's last activation is undone."""

    @property
    def normal_distance(self) -> float:
        """What 95 in 100 truly normal dimensions stay below, as a Kolmogorov-Smirnov distance."""
        return 0.886 / len(self.w.samples) ** 0.5

    @property
    def pair(self) -> tuple[int, int]:
        """The dimensions that are shown: those whose distance in W is the median, so that neither is picked."""
        order = self.w.ks_distance.argsort().tolist()
        middle = len(order) // 2
        return order[middle], order[middle - 1]

    def summary(self) -> str:
        """The report in one sentence."""
        w, v = (float(space.ks_distance.median()) for space in (self.w, self.v))
        share = float((self.v.ks_distance < self.normal_distance).double().mean())
        return (
            f"Dimensions of W are {w:.3f} from normal in the middle, those of V {v:.3f} (Kolmogorov-Smirnov); "
            f"{share:.0%} of V's are below {self.normal_distance:.3f}, where 95% of truly normal ones would be."
        )

    def numbers(self) -> dict[str, Any]:
        """All numbers, as JSON can hold them."""
        spaces = {"w": self.w, "v": self.v}
        return {
            "num": len(self.w.samples),
            "normal_ks_distance": self.normal_distance,
            "shown_dimensions": list(self.pair),
            **{name: _numbers(space) for name, space in spaces.items()},
        }

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``normality.json`` and ``normality.png`` to a folder, made if missing, with the settings.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        table, picture = Path(folder) / "normality.json", Path(folder) / "normality.png"
        write_json(table, {"summary": self.summary(), "settings": dict(settings or {}), **self.numbers()})
        plot_normality(self, picture)
        return [table, picture]


def normality_report(
    G: Generator, num_samples: int = 10_000, seed: int = 0, *, c: Tensor | None = None
) -> NormalityReport:
    """Measures how normal a generator's latents are.

    Args:
        G: The generator; w is drawn on its device.
        num_samples: How many samples, two or more; all are held in memory.
        seed: Of the samples.
        c: One label [C] for all, or labels [M, C] to draw from; None draws from all classes of a conditional network.

    Raises:
        ValueError: Fewer samples, or labels that the network cannot take.
    """
    if num_samples < 2:
        raise ValueError(f"num: got {num_samples}, expected at least 2 samples, for a deviation (--num)")
    spaces = marginal_normality(G, num_samples, seed, c=c)
    return NormalityReport(w=spaces["w"], v=spaces["v"])


def plot_normality(report: NormalityReport, path: str | Path) -> None:
    """Draws one dimension's histogram and the scatter of a pair, in W and in V, and the numbers of all (Figure 1).

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    first, second = report.pair
    farthest = float(torch.maximum(report.w.ks_distance, report.v.ks_distance).max())
    with plots.figure(path, 2, 3, size=(10.8, 5.8), dpi=80) as axes:
        for row, (name, space) in enumerate((("w", report.w), ("v", report.v))):
            histogram, scatter, distances = axes[3 * row : 3 * row + 3]
            x, y = space.samples[:, first].cpu().double(), space.samples[:, second].cpu().double()
            _draw_histogram(histogram, x)
            skewness, kurtosis = float(space.skewness[first]), float(space.excess_kurtosis[first])
            histogram.set_title(f"{name}[{first}]: skewness {skewness:.2f}, excess kurtosis {kurtosis:.2f}", fontsize=9)
            scatter.plot(x[:SHOWN], y[:SHOWN], ".", markersize=2, alpha=0.3, rasterized=True)
            scatter.set(title=f"{name}[{first}] and {name}[{second}]", xlabel=f"{name}[{first}]")
            scatter.set_ylabel(f"{name}[{second}]")
            distances.hist(space.ks_distance.numpy(), bins=40, range=(0, 1.05 * farthest))
            distances.axvline(report.normal_distance, color="black", linewidth=0.8, linestyle="--")
            median = float(space.ks_distance.median())
            distances.set_title(f"all {len(space.ks_distance)} of {name}: {median:.3f} in the middle", fontsize=9)
            distances.set(xlabel="distance (dashed: 95 % of normal ones)", ylabel="dimensions")


def _draw_histogram(ax: Axes, x: Tensor) -> None:
    """A histogram, and the normal density of the same mean and deviation."""
    ax.hist(x.numpy(), bins=BINS, density=True)
    mean, std = float(x.mean()), float(x.std())
    if std > 0:
        at = torch.linspace(float(x.min()), float(x.max()), 200, dtype=torch.float64)
        density = (-0.5 * ((at - mean) / std).square()).exp() / (std * (2 * torch.pi) ** 0.5)
        ax.plot(at, density, color=plots.COLOURS[1], label="normal")
        ax.legend()
    ax.set(ylabel="density")


def _numbers(space: MarginalNormality) -> dict[str, Any]:
    columns = ("skewness", "excess_kurtosis", "ks_distance")
    quantiles = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    values: dict[str, Tensor] = {name: getattr(space, name) for name in columns}
    return {
        name: dict(zip(("q05", "median", "q95"), x.quantile(quantiles).tolist(), strict=True)) | {"all": x.tolist()}
        for name, x in values.items()
    }
