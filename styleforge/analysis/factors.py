"""Do generated portraits vary as drawn ones do? Each factor's spread, as one reader reads it off both."""
# Shapes: N generated pictures, M drawn ones, F factors, K values of a categorical factor.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from styleforge.analysis.factor_reader import FactorReader, ReaderConfig, deviation, reading_size
from styleforge.data.portraits import FACTORS, Factor
from styleforge.files import write_json
from styleforge.latents import generate_images
from styleforge.networks import Generator

READABLE = 0.5
"""Factors that the reader reads with a lower score are flagged: of them the numbers say little."""
COLLAPSED, NARROW, WIDE = 0.25, 0.8, 1.25
"""Spreads at which the verdict changes."""
MISSING, EXPECTED = 0.1, 10
"""A value is missing if it is read less often than this share of its frequency in the data, where the data would have
shown it at least this many times."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
RESAMPLINGS = 200
"""Pairs of sets of drawn portraits from which it is known what chance does to a distance."""


@dataclass(kw_only=True, slots=True)
class FactorStats:
    """One factor, as read off generated and off drawn portraits."""

    name: str
    """As in `FACTORS`."""
    kind: str
    """``continuous`` or ``categorical``."""
    score: float
    """How well it is read off drawn portraits, see `FactorReader.scores`: R², or its like for categories."""
    readable: bool
    """Whether the score is at least `READABLE`."""
    spread: float | None
    """Generated over drawn: standard deviations, or entropies of categories. None if the drawn ones have none."""
    distance: float
    """Between the two distributions: Wasserstein's, in standard deviations of the data, or total variation."""
    chance: float
    """The distance that 95% of pairs of such sets of drawn portraits stay below."""
    missing: list[str]
    """Values of a categorical factor that are almost never generated, though `EXPECTED` were to be seen."""
    verdict: str
    """The same in words, by the spread."""
    drawn: dict[str, Any]
    """Mean, std and quantiles of the readings, or share of each value and entropy in nats."""
    generated: dict[str, Any]
    """Of the generated portraits."""


@dataclass(kw_only=True, slots=True)
class FactorReport:
    """What varies in generated portraits, and how much."""

    factors: list[FactorStats]
    """In the order of `FACTORS`."""
    reader: ReaderConfig
    """What the readings were made with."""
    drawn: np.ndarray
    """[M, F]: readings of drawn portraits that the reader was not trained on."""
    generated: np.ndarray
    """[N, F]: readings of generated ones."""

    def summary(self) -> str:
        """The report in one sentence."""
        readable = [stats for stats in self.factors if stats.readable and stats.spread is not None]
        head = f"{len(readable)} of {len(self.factors)} factors are readable"
        if not readable:
            return f"{head}."
        spreads = sorted((stats.spread or 0.0, stats.name) for stats in readable)
        (low, narrowest), (high, widest) = spreads[0], spreads[-1]
        narrow = sum(spread < NARROW for spread, _ in spreads)
        return (
            f"{head}; their spread is {low:.2f} ({narrowest}) to {high:.2f} ({widest}) of the data's, "
            f"below {NARROW} for {narrow or 'none'}."
        )

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``factors.json`` and ``factors.png``.

        Args:
            folder: Where; made if it is missing.
            settings: How the pictures were made, as JSON objects, to be kept beside the numbers.

        Returns:
            The files.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        table, picture = Path(folder) / "factors.json", Path(folder) / "factors.png"
        values = {
            "summary": self.summary(),
            "settings": {"num": len(self.generated), **(settings or {}), "reader": asdict(self.reader)},
            "factors": {stats.name: asdict(stats) for stats in self.factors},
        }
        write_json(table, values)
        plot_factors(self, picture)
        return [table, picture]


def factor_report(
    G: Generator,
    *,
    num: int = 1000,
    seed: int = 0,
    c: Tensor | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    noise_mode: str = "const",
    lod: float = 0.0,
    batch: int | None = None,
    reader: FactorReader | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FactorReport:
    """Measures how much generated portraits vary in each factor, against drawn ones.

    It is for networks that were trained on `styleforge.data.portraits`; it cannot know, and of any other the numbers
    mean nothing.

    Args:
        G: The generator; work is done on its device, and reading on the CPU.
        num: Number of pictures; their seeds are 0 to num - 1.
        seed: Of the reader and its portraits.
        c: One label [C] for all, or one for each picture [N, C]; None for an unconditional network.
        truncation_psi: 1 leaves w, 0 gives the mean w.
        truncation_cutoff: Number of layers that are truncated; None for all.
        transform: What happens to the truncated ws.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time; None for what memory suggests.
        reader: A reader for pictures of this size; by default the one of `reader_config`, which is trained first if
            it is not in the cache.
        progress: Called with the number done and the total, of each stage after the other.

    Raises:
        ValueError: A network whose pictures cannot be portraits, or an argument that it cannot take.
        MemoryError: Memory ran out.
    """
    if num < 2:
        raise ValueError(f"num: got {num}, expected at least 2 pictures, for a spread (--num)")
    config = reader_config(G, seed)
    reader = reader or FactorReader.train_cached(config, progress=progress)
    assert reader.config.size == config.size
    batches = generate_images(
        G,
        range(num),
        c=c,
        truncation_psi=truncation_psi,
        truncation_cutoff=truncation_cutoff,
        transform=transform,
        noise_mode=noise_mode,
        lod=lod,
        batch=batch,
    )
    readings: list[np.ndarray] = []
    for _, _, images_uint8 in batches:
        readings.extend(reader.read(images_uint8))
        if progress is not None:
            progress(len(readings), num)
    return compare_readings(reader, np.stack(readings))


def reader_config(G: Generator, seed: int = 0) -> ReaderConfig:
    """The reader that fits a generator's pictures.

    Raises:
        ValueError: They cannot be portraits.
    """
    if G.img_channels != 3:
        raise ValueError(
            f"network: got one of {G.img_channels}-channel pictures, expected red, green and blue, as portraits have; "
            "take a network that was trained on portraits"
        )
    return ReaderConfig(size=reading_size(G.config.size), seed=seed)


def compare_readings(reader: FactorReader, generated: np.ndarray) -> FactorReport:
    """Compares what a reader reads off some pictures with what it reads off drawn ones.

    Args:
        reader: The reader; its own held-out portraits are the drawn ones.
        generated: Readings [N, F], as from `FactorReader.read`.
    """
    drawn, scores = reader.held_out_readings, reader.scores()
    rng = np.random.default_rng(0)
    drawn_sets = [
        (drawn[rng.integers(len(drawn), size=len(generated))], drawn[rng.integers(len(drawn), size=len(drawn))])
        for _ in range(RESAMPLINGS)
    ]
    stats = []
    for i, factor in enumerate(FACTORS):
        chance = np.quantile([distribution_distance(factor, a[:, i], b[:, i]) for a, b in drawn_sets], 0.95)
        stats.append(_stats(factor, float(scores[i]), drawn[:, i], generated[:, i], float(chance)))
    return FactorReport(factors=stats, reader=reader.config, drawn=drawn, generated=generated)


def distribution_distance(factor: Factor, a: np.ndarray, b: np.ndarray) -> float:
    """Distance between the distributions of two sets of readings of one factor.

    Args:
        factor: Which.
        a: Readings of one set, of any length.
        b: Readings of the other.

    Returns:
        For a continuous factor Wasserstein's distance W1, the area between the two distribution functions, in
        standard deviations of the data; for a categorical one the total variation, from 0 to 1.
    """
    if factor.values:
        return float(abs(_shares(factor, a) - _shares(factor, b)).sum() / 2)
    a, b = np.sort(a), np.sort(b)
    steps = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(values, steps[:-1], side="right") / len(values) for values in (a, b)]
    return float((abs(below[0] - below[1]) * np.diff(steps)).sum() / deviation(factor))


def _stats(factor: Factor, score: float, drawn: np.ndarray, generated: np.ndarray, chance: float) -> FactorStats:
    """The numbers of one factor, from its readings [M] and [N]."""
    sides = [_describe(factor, drawn), _describe(factor, generated)]
    size = "entropy" if factor.values else "std"
    spread = sides[1][size] / sides[0][size] if sides[0][size] > 0 else None
    missing = [
        value
        for value, share in sides[0].get("shares", {}).items()
        if share * len(generated) >= EXPECTED and sides[1]["shares"][value] < MISSING * share
    ]
    return FactorStats(
        name=factor.name,
        kind=factor.kind,
        score=score,
        readable=score >= READABLE,
        spread=spread,
        distance=distribution_distance(factor, drawn, generated),
        chance=chance,
        missing=missing,
        verdict=_verdict(score, spread, missing),
        drawn=sides[0],
        generated=sides[1],
    )


def _describe(factor: Factor, readings: np.ndarray) -> dict[str, Any]:
    """A distribution in a few numbers."""
    if not factor.values:
        quantiles = {
            f"{q:g}": float(value) for q, value in zip(QUANTILES, np.quantile(readings, QUANTILES), strict=True)
        }
        return {"mean": float(readings.mean()), "std": float(readings.std()), "quantiles": quantiles}
    shares = _shares(factor, readings)
    present = shares[shares > 0]
    return {
        "shares": dict(zip(factor.values, shares.tolist(), strict=True)),
        "entropy": float(-(present * np.log(present)).sum()) + 0.0,  # not -0
    }


def _shares(factor: Factor, readings: np.ndarray) -> np.ndarray:
    """How often each value of a categorical factor was read, [K], summing to 1."""
    return np.bincount(readings.astype(int), minlength=len(factor.values)) / len(readings)


def _verdict(score: float, spread: float | None, missing: list[str]) -> str:
    """A factor's numbers in a few words."""
    if score < READABLE or spread is None:
        return "not readable"
    if spread < COLLAPSED:
        verdict = "collapsed"
    elif spread < NARROW:
        verdict = "narrower than the data"
    elif spread <= WIDE:
        verdict = "as varied as the data"
    else:
        verdict = "wider than the data"
    return f"{verdict}, without {', '.join(missing)}" if missing else verdict


def plot_factors(report: FactorReport, path: str | Path) -> None:
    """Draws each factor's histogram, of drawn against generated portraits.

    Args:
        report: As from `factor_report`.
        path: Target file; its ending chooses the format.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    columns = 5
    rows = -(-(len(FACTORS) + 1) // columns)  # one place more, for the legend
    title = f"{len(report.generated)} generated portraits against {len(report.drawn)} drawn ones, as read off both"
    sides = [("drawn", report.drawn), ("generated", report.generated)]
    with plots.figure(path, rows, columns, size=(3 * columns, 2.2 * rows), title=title) as axes:
        for i, (factor, stats) in enumerate(zip(FACTORS, report.factors, strict=True)):
            ax = axes[i]
            note = f"spread {stats.spread:.2f}" if stats.readable and stats.spread is not None else "not readable"
            ax.set_title(f"{factor.name.replace('_', ' ')}: {note}", color="black" if stats.readable else "gray")
            ax.set_yticks([])
            ax.grid(visible=False)
            for k, (label, readings) in enumerate(sides):
                colour, alpha = plots.COLOURS[k], (0.35, 1.0)[k]
                if factor.values:
                    places = np.arange(len(factor.values)) + 0.4 * (k - 0.5)
                    ax.bar(places, _shares(factor, readings[:, i]), 0.4, color=colour, alpha=alpha, label=label)
                    ax.set_xticks(range(len(factor.values)), factor.values, fontsize=7)
                else:
                    margin = 0.15 * (factor.high - factor.low)
                    bins = np.linspace(factor.low - margin, factor.high + margin, 40)
                    inside = readings[:, i].clip(bins[0], bins[-1])  # what lies further out counts at the edge
                    ax.hist(
                        inside,
                        bins.tolist(),
                        density=True,
                        histtype="stepfilled" if k == 0 else "step",
                        linewidth=1.6,
                        color=colour,
                        alpha=alpha,
                        label=label,
                    )
        for ax in axes[len(FACTORS) :]:
            ax.set_axis_off()
        axes[len(FACTORS)].legend(*axes[0].get_legend_handles_labels(), loc="center", fontsize=11)
