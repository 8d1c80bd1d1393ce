"""Truncation against compression: what each costs in variety at the same FID (Wulff & Torralba, Figures 4 to 6)."""
# Shapes: N pictures, C H W one of them, F number of features, W length of w, K principal components.

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge import images, plots
from styleforge.features import Extractor
from styleforge.files import write_json
from styleforge.latents import GaussianLatents
from styleforge.metrics import measure
from styleforge.metrics.draws import IMAGES, draw_z
from styleforge.metrics.pictures import GeneratedPictures, RealPictures
from styleforge.metrics.tools import Tools

TAUS = (2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12)
"""Thresholds at which FID is measured, from weak to strong."""
COMPONENTS = 30
"""Principal components that are compared, as in Figure 5."""
EXTREME = 0.05
"""Share of the pictures that count as those with artifacts, and as those without."""
SAMPLES = 8
"""Pictures that are shown of each kind."""

Progress = Callable[[int, int], None]


@dataclass(kw_only=True, slots=True)
class Variety:
    """How varied pictures are after a correction."""

    psi: float
    """Truncation; 1 is off."""
    tau: float
    """Threshold of the compression; infinity is off."""
    fid: float
    """To the real pictures."""
    deviation: float
    """Standard deviation of a pixel over pictures, mean over pixels and channels, in steps of 255."""
    similarity: float
    """Mean cosine similarity of features before and after the correction, both less the mean before: 1 is unchanged."""
    mean_image: Tensor = field(repr=False)
    """[C, H, W] float64 in steps of 255."""
    deviation_image: Tensor = field(repr=False)
    """[C, H, W] float64 in steps of 255."""
    samples: Tensor = field(repr=False)
    """[S, C, H, W] uint8: the first pictures."""

    @property
    def name(self) -> str:
        """In words."""
        if self.psi != 1:
            return f"ψ {self.psi:g}"
        return "none" if math.isinf(self.tau) else f"τ {self.tau:.2g}"

    def numbers(self) -> dict[str, float | None]:
        """Its numbers, as JSON can hold them."""
        tau = None if math.isinf(self.tau) else self.tau
        return {
            "psi": self.psi,
            "tau": tau,
            "fid": self.fid,
            "pixel_deviation": self.deviation,
            "similarity": self.similarity,
        }


@dataclass(kw_only=True, slots=True)
class Components:
    """Principal components of V of pictures with and without artifacts (Figure 5)."""

    worst: Tensor
    """[N, K] float64: components, in standard deviations, of the pictures farthest from all real ones."""
    best: Tensor
    """[N, K] float64: of the nearest ones."""

    @property
    def excess(self) -> float:
        """Mean magnitude of the worst over that of the best: 1 if artifacts do not lie in the tails."""
        return float(self.worst.abs().mean() / self.best.abs().mean())


@dataclass(kw_only=True, slots=True)
class DiversityReport:
    """Truncation and compression at the same FID."""

    psi_curve: list[tuple[float, float]]
    """(psi, FID)."""
    tau_curve: list[tuple[float, float]]
    """(tau, FID), from weak to strong."""
    plain: Variety
    """Without correction."""
    pairs: list[tuple[Variety, Variety | None]]
    """Truncation, and compression at about its FID, or None where there is none."""
    components: Components
    """Where artifacts lie in V."""
    metric: str
    """Name of the FID, with its extractor."""

    def summary(self) -> str:
        """The report in a sentence or two."""
        parts = [
            f"τ {b.tau:.2g} for ψ {a.psi:g} (similarity {b.similarity:.2f} against {a.similarity:.2f}, pixel deviation "
            f"{b.deviation:.1f} against {a.deviation:.1f})"
            for a, b in self.pairs
            if b is not None
        ]
        matched = (
            f"At the same {self.metric}: {'; '.join(parts)}." if parts else f"No τ has the {self.metric} of any ψ."
        )
        return (
            f"{matched} Components of V of the worst {EXTREME:.0%} of pictures are {self.components.excess:.2f} times "
            "as large as those of the best."
        )

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``diversity.json``, plots ``diversity.png`` and pictures ``diversity-pictures.png``.

        Args:
            folder: Where; made if it is missing.
            settings: What to keep beside the numbers.

        Returns:
            The files.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        table, plot, sheet = (Path(folder) / f"diversity{end}" for end in (".json", ".png", "-pictures.png"))
        values = {
            "summary": self.summary(),
            "settings": dict(settings or {}),
            "metric": self.metric,
            "fid_by_psi": self.psi_curve,
            "fid_by_tau": self.tau_curve,
            "plain": self.plain.numbers(),
            "pairs": [
                {"truncation": a.numbers(), "compression": None if b is None else b.numbers()} for a, b in self.pairs
            ],
            "components": {
                "excess": self.components.excess,
                "worst": self.components.worst.abs().mean(0).tolist(),
                "best": self.components.best.abs().mean(0).tolist(),
            },
        }
        write_json(table, values)
        plot_diversity(self, plot)
        images.save(picture_sheet(self), sheet)
        return [table, plot, sheet]


def diversity_report(
    pictures: GeneratedPictures,
    tools: Tools,
    *,
    psis: Sequence[float] = (0.9, 0.7, 0.5),
    taus: Sequence[float] = TAUS,
    num: int = 1024,
    num_fid: int = 5000,
    progress: Progress | None = None,
) -> DiversityReport:
    """Compares truncation with compression.

    Args:
        pictures: Generated pictures without correction, with the dataset to compare with.
        tools: The feature networks; that for FID makes the similarity, too.
        psis: Truncations.
        taus: Thresholds, falling, between which those with the same FID are looked for.
        num: Pictures for mean, deviation, similarity and components.
        num_fid: Generated pictures for each FID.
        progress: Called with (done, total) of each stage.

    Raises:
        ValueError: No dataset, too few pictures, or what `styleforge.metrics.measure` refuses.
    """
    if pictures.labels is None:
        raise ValueError("diversity: got no dataset, expected real pictures, for FID (--data)")
    least = math.ceil(2 / EXTREME)
    if num < least:
        raise ValueError(f"num: got {num}, expected at least {least} pictures, to tell the worst from the best (--num)")
    gaussian = GaussianLatents.fit_cached(pictures.G)
    names = f"fid{num_fid / 1000:g}k_full"

    def corrected(psi: float, tau: float) -> GeneratedPictures:
        return GeneratedPictures(
            pictures.G,
            seed=pictures.seed,
            labels=pictures.labels,
            truncation_psi=psi,
            transform=None if math.isinf(tau) else partial(gaussian.compress, tau=tau),
            transform_name="" if math.isinf(tau) else f"compress{tau!r}",
            lod=pictures.lod,
            batch=pictures.batch,
        )

    def fid(psi: float, tau: float) -> float:
        (found,) = measure(corrected(psi, tau), names, tools, progress=progress)
        return next(iter(found.results.values()))

    plain_fid = fid(1.0, math.inf)
    psi_curve = [(psi, fid(psi, math.inf)) for psi in psis]
    tau_curve = [(tau, fid(1.0, tau)) for tau in taus]
    extractor = tools.extractor_for("fid")
    features, look = extract(pictures, extractor, num, progress)
    plain = _variety(1.0, math.inf, plain_fid, features, features, look)
    pairs: list[tuple[Variety, Variety | None]] = []
    for psi, value in psi_curve:
        after, look = extract(corrected(psi, math.inf), extractor, num, progress)
        truncated, compressed = _variety(psi, math.inf, value, features, after, look), None
        if (tau := matching_tau(value, plain_fid, tau_curve)) is not None:
            after, look = extract(corrected(1.0, tau), extractor, num, progress)
            compressed = _variety(1.0, tau, fid(1.0, tau), features, after, look)
        pairs.append((truncated, compressed))
    return DiversityReport(
        psi_curve=[(1.0, plain_fid), *psi_curve],
        tau_curve=tau_curve,
        plain=plain,
        pairs=pairs,
        components=_components(pictures, gaussian, extractor, features),
        metric=f"fid{tools.suffix('fid')}",
    )


def matching_tau(wanted: float, plain: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """The weakest threshold at which a curve of FID has a value, linear between its points in log tau.

    Args:
        wanted: The FID.
        plain: The FID without compression, which counts as that at twice the largest threshold.
        curve: (tau, FID), tau falling.

    Returns:
        None if the curve does not reach the value.
    """
    points = [(2 * curve[0][0], plain), *curve]
    for (tau0, fid0), (tau1, fid1) in itertools.pairwise(points):
        if fid0 != fid1 and min(fid0, fid1) <= wanted <= max(fid0, fid1):
            t = (wanted - fid0) / (fid1 - fid0)
            return math.exp((1 - t) * math.log(tau0) + t * math.log(tau1))
    return None


@dataclass(kw_only=True, slots=True)
class _Look:
    """What pictures look like together."""

    mean: Tensor
    deviation: Tensor
    samples: Tensor


def extract(
    pictures: GeneratedPictures, extractor: Extractor, num: int, progress: Progress | None = None
) -> tuple[Tensor, _Look]:
    """Features [N, F] of the first pictures, on the CPU, and what these look like together."""
    features, samples = [], []
    shape = (pictures.G.img_channels, *pictures.G.config.size)
    total, squares = torch.zeros(2, *shape, dtype=torch.float64)
    for first in range(0, num, pictures.batch):
        images_uint8 = pictures(range(first, min(first + pictures.batch, num)))  # [n, C, H, W]
        features.append(extractor(images_uint8).features.cpu())
        x = images_uint8.cpu().double()
        total += x.sum(0)
        squares += x.square().sum(0)
        if first < SAMPLES:
            samples.append(images_uint8.cpu())
        if progress is not None:
            progress(min(first + pictures.batch, num), num)
    mean = total / num
    deviation = (squares / num - mean.square()).clamp(min=0).sqrt()
    return torch.cat(features), _Look(mean=mean, deviation=deviation, samples=torch.cat(samples)[:SAMPLES])


def _variety(psi: float, tau: float, fid: float, before: Tensor, after: Tensor, look: _Look) -> Variety:
    centre = before.mean(0)
    similarity = F.cosine_similarity(before - centre, after - centre).mean()
    return Variety(
        psi=psi,
        tau=tau,
        fid=fid,
        deviation=float(look.deviation.mean()),
        similarity=float(similarity),
        mean_image=look.mean,
        deviation_image=look.deviation,
        samples=look.samples,
    )


def _components(
    pictures: GeneratedPictures, gaussian: GaussianLatents, extractor: Extractor, features: Tensor
) -> Components:
    """Components of V of the pictures whose features lie farthest from, and nearest to, those of real ones."""
    assert pictures.labels is not None
    reals, G = RealPictures(pictures.labels), pictures.G
    count = min(len(pictures.labels), 2 * len(features))
    real = torch.cat(
        [
            extractor(reals(range(first, min(first + reals.batch, count)))).features.cpu()
            for first in range(0, count, reals.batch)
        ]
    )
    unit = real.std(0).clamp(min=1e-8)
    order = torch.cdist(features / unit, real / unit).amin(1).argsort()  # the nearest one first
    indices = range(len(features))
    with torch.no_grad():
        w = G.mapping.map(
            draw_z(pictures.seed, indices, G.z_dim, stream=IMAGES).to(G.w_avg.device), pictures.c(indices)
        )
    variances, axes = gaussian.principal_axes()
    v = gaussian.w_to_v(w).cpu().double()
    components = (v - gaussian.mean) @ axes[:, :COMPONENTS] / variances[:COMPONENTS].clamp(min=1e-12).sqrt()
    few = round(EXTREME * len(features))
    return Components(worst=components[order[-few:]], best=components[order[:few]])


def picture_sheet(report: DiversityReport) -> Tensor:
    """Without correction, and the strongest truncation and its compression: samples, mean, deviation as brightness.

    Returns:
        [C, H, W] uint8, a row for each.
    """
    matched = [pair for pair in report.pairs if pair[1] is not None] or report.pairs
    rows = [report.plain, *(one for one in min(matched, key=lambda pair: pair[0].psi) if one is not None)]
    brightest = max(float(row.deviation_image.max()) for row in rows) or 1.0
    cells = []
    for row in rows:
        extra = torch.stack([row.mean_image, row.deviation_image * (255 / brightest)]).round().clamp(0, 255)
        cells += [row.samples, extra.to(torch.uint8)]
    return images.grid(torch.cat(cells), len(rows[0].samples) + 2, padding=2)


def plot_diversity(report: DiversityReport, path: str | Path) -> None:
    """Draws FID by psi and tau, similarity and deviation by FID (Figure 6), and components of V (Figure 5).

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    with plots.figure(path, 2, 2, size=(9, 6.6)) as (curves, similarity, deviation, components):
        for points, label in ((report.psi_curve, "truncation ψ"), (report.tau_curve, "compression τ")):
            curves.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        curves.axhline(report.plain.fid, color="black", linewidth=0.6, linestyle=":", label="none")
        curves.set(title=report.metric, xlabel="ψ or τ")
        curves.legend()
        truncated = [report.plain, *(a for a, _ in report.pairs)]
        compressed = [report.plain, *(b for _, b in report.pairs if b is not None)]
        for ax, name in ((similarity, "similarity"), (deviation, "deviation")):
            for series, label in ((truncated, "truncation"), (compressed, "compression")):
                x, y = [one.fid for one in series], [getattr(one, name) for one in series]
                ax.plot(x, y, marker="o", markersize=3, label=label)
                for one, at, height in list(zip(series, x, y, strict=True))[1:]:
                    ax.annotate(one.name, (at, height), textcoords="offset points", xytext=(4, 3), fontsize=7)
            ax.set(xlabel=report.metric)
            ax.legend()
        similarity.set(title="similarity to the uncorrected picture")
        deviation.set(title="standard deviation of a pixel, of 255")
        number = range(1, report.components.worst.shape[1] + 1)
        for rows, label in ((report.components.worst, "worst"), (report.components.best, "best")):
            components.plot(number, rows.abs().mean(0), marker="o", markersize=3, label=f"{label} {EXTREME:.0%}")
        components.axhline(math.sqrt(2 / math.pi), color="black", linewidth=0.6, linestyle=":", label="Gaussian")
        components.set(title="mean magnitude of components of V", xlabel="principal component", ylabel="σ")
        components.set(ylim=(0, None))
        components.legend()
