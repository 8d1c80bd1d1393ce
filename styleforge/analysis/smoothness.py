"""How evenly pictures follow w: singular values of dG/dw, and speed along interpolations."""
# Shapes: N points, M interpolations, T moments of one, K singular values, L number of ws, W length of w.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styleforge import plots
from styleforge.analysis.jacobian import push, singular_values
from styleforge.files import write_json
from styleforge.networks import Generator


@dataclass(kw_only=True, slots=True)
class PathLengths:
    """Interpolations from one w to another, by lerp."""

    speeds: Tensor
    """[M, T] float64: how far the picture moves per unit of t, at T moments t in [0, 1]; root mean square of pixels
    in [-1, 1]."""
    chords: Tensor
    """[M] float64: distance of the two ends' pictures, in the same unit."""

    @property
    def lengths(self) -> Tensor:
        """[M]: lengths of the paths that the pictures take, by the trapezoidal rule."""
        return torch.trapezoid(self.speeds, dx=1 / (self.speeds.shape[1] - 1))

    @property
    def detours(self) -> Tensor:
        """[M]: length over chord; 1 is a cross-fade, the shortest path that there is."""
        return self.lengths / self.chords

    @property
    def unevenness(self) -> Tensor:
        """[M]: standard deviation of the speed over its mean; 0 is a steady pace."""
        return self.speeds.std(1, correction=0) / self.speeds.mean(1)


def path_lengths(
    G: Generator,
    starts: Tensor,
    ends: Tensor,
    *,
    num_moments: int = 17,
    noise_mode: str = "const",
    batch: int | None = None,
) -> PathLengths:
    """Speeds of pictures along straight lines in W: exact derivatives, no differences.

    Args:
        G: The generator; work is done on its device.
        starts: w [M, W].
        ends: w [M, W].
        num_moments: T, at least 2.
        noise_mode: ``const`` or ``none``.
        batch: Derivatives at a time.
    """
    assert num_moments >= 2
    device = G.w_avg.device
    starts, ends = starts.to(device), ends.to(device)
    t = torch.linspace(0, 1, num_moments, device=device, dtype=starts.dtype)[:, None]  # [T, 1]
    speeds, chords = [], []
    for start, end in zip(starts, ends, strict=True):
        derivatives = push(G, start.lerp(end, t), (end - start).expand(num_moments, -1), noise_mode, batch)  # [T, P]
        speeds.append(derivatives.cpu().double().square().mean(1).sqrt())
        with torch.no_grad():
            ws = torch.stack([start, end])[:, None].expand(-1, G.num_ws, -1)
            first, last = G.synthesis(ws, noise_mode=noise_mode).cpu().double()
        chords.append((last - first).square().mean().sqrt())
    return PathLengths(speeds=torch.stack(speeds), chords=torch.stack(chords))


@dataclass(kw_only=True, slots=True)
class SmoothnessReport:
    """How well-conditioned a generator is, and how evenly it interpolates."""

    values: Tensor
    """[N, K] float64: falling singular values of dG/dw at each point."""
    all_values: bool
    """Whether K are all that there are, not the largest alone."""
    paths: PathLengths
    """Between the points, the first two, the next two and so on."""

    @property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [K] over the points of singular values whose largest is 1 (Figure 17)."""
        scaled = self.values / self.values[:, :1]
        return scaled.mean(0), scaled.std(0, correction=0)

    @property
    def effective_dimensions(self) -> Tensor:
        """[N]: (sum of squares)² / sum of fourth powers of the singular values; K if all are equal, 1 if one rules."""
        squares = self.values.square()
        return squares.sum(1).square() / squares.square().sum(1)

    def numbers(self) -> dict[str, Any]:
        """All numbers, as JSON can hold them."""
        mean, std = self.spectrum
        return {
            "largest_singular_value": _spread(self.values[:, 0]),
            "effective_dimensions": _spread(self.effective_dimensions),
            "singular_values_are_all": self.all_values,
            "singular_values_mean": mean.tolist(),
            "singular_values_std": std.tolist(),
            "path_length": _spread(self.paths.lengths),
            "path_detour": _spread(self.paths.detours),
            "path_unevenness": _spread(self.paths.unevenness),
            "path_speeds": self.paths.speeds.tolist(),
        }

    def summary(self) -> str:
        """The report in one sentence."""
        mean, _ = self.spectrum
        middle = len(mean) // 2
        return (
            f"{float(self.effective_dimensions.mean()):.1f} effective dimensions of {len(mean)} singular values "
            f"(number {middle + 1} is {float(mean[middle]):.2g} of the largest); interpolations are "
            f"{float(self.paths.detours.mean()):.2f} times as long as a cross-fade, and their speed varies by "
            f"{float(self.paths.unevenness.mean()):.0%}."
        )

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``smoothness.json`` and ``smoothness.png`` to a folder, made if missing, with the settings.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        table, picture = Path(folder) / "smoothness.json", Path(folder) / "smoothness.png"
        write_json(table, {"summary": self.summary(), "settings": dict(settings or {}), **self.numbers()})
        plot_smoothness(self, picture)
        return [table, picture]


def smoothness_report(
    G: Generator,
    w: Tensor,
    *,
    rank: int | None = None,
    num_moments: int = 17,
    noise_mode: str = "const",
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SmoothnessReport:
    """Measures conditioning and interpolation at some points.

    Args:
        G: The generator; work is done on its device.
        w: [N, W], two or more.
        rank: As in `singular_values`.
        num_moments: Moments of each interpolation.
        noise_mode: ``const`` or ``none``.
        batch: Derivatives at a time.
        progress: Called with the number of points done and the total.

    Raises:
        ValueError: Fewer points, or noise that differs from one picture to the next.
    """
    if len(w) < 2:
        raise ValueError(f"num: got {len(w)}, expected at least 2 points, for an interpolation between them (--num)")
    values = []
    for i, point in enumerate(w):
        values.append(singular_values(G, point, rank=rank, noise_mode=noise_mode, batch=batch).double())
        if progress is not None:
            progress(i + 1, len(w))
    pairs = len(w) // 2 * 2
    paths = path_lengths(G, w[0:pairs:2], w[1:pairs:2], num_moments=num_moments, noise_mode=noise_mode, batch=batch)
    return SmoothnessReport(values=torch.stack(values), all_values=rank is None, paths=paths)


def plot_smoothness(report: SmoothnessReport, path: str | Path) -> None:
    """Draws the singular values (Figure 17), and the speed along each interpolation.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    mean, std = (x.numpy() for x in report.spectrum)
    number = range(1, len(mean) + 1)
    with plots.figure(path, 1, 2, size=(9, 3.4)) as (left, right):
        floor = max(float(mean.min()), 1e-8)
        left.plot(number, mean)
        left.fill_between(number, (mean - std).clip(floor / 2), mean + std, alpha=0.25, linewidth=0)
        left.set(yscale="log", xlabel="number", ylabel="singular value, largest = 1")
        left.set_title(f"dG/dw at {len(report.values)} points: mean and deviation")
        moments = torch.linspace(0, 1, report.paths.speeds.shape[1])
        for speeds in report.paths.speeds[:16]:
            right.plot(moments, speeds, linewidth=1)
        right.set(xlabel="t", ylabel="pixels' root mean square per unit of t", ylim=(0, None))
        right.set_title(f"speed along {min(16, len(report.paths.speeds))} interpolations")


def _spread(values: Tensor) -> dict[str, float]:
    """Mean and standard deviation."""
    return {"mean": float(values.mean()), "std": float(values.std(correction=0))}
