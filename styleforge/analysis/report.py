"""A whole report of a generator: every analysis that it can have, on one page."""
# Shapes: N pictures, L number of ws, W length of w.

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from styleforge import images
from styleforge.analysis.html import Section
from styleforge.data import ImageDataset
from styleforge.latents import generate_images, generate_ws
from styleforge.metrics import Tools, measure
from styleforge.metrics.pictures import GeneratedPictures, RealPictures
from styleforge.metrics.records import record
from styleforge.networks import Generator

Progress = Callable[[int, int], None]


class Report(Protocol):
    """What every analysis gives."""

    def summary(self) -> str:
        """What was found, in a sentence or two."""

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes numbers and pictures."""


@dataclass(kw_only=True)
class Subject:
    """What is reported on."""

    G: Generator
    """The generator; work is done on its device."""
    data: ImageDataset | None = None
    """Real pictures; without them some sections stay empty."""
    tools: Tools = field(default_factory=lambda: Tools(extractor="auto"))
    """The feature networks of the metrics."""
    num: int = 200
    """Pictures of an analysis; their seeds are counted from 0."""
    num_fid: int = 5000
    """Generated pictures of a metric."""
    lod: float = 0.0
    """Level of detail of a network that is still growing; 0 is full resolution."""
    batch: int | None = None
    """Pictures at a time; None for a number by their size."""
    progress: Progress | None = None
    """Called with (done, total) of the analysis at hand."""

    @cached_property
    def ws(self) -> Tensor:
        """[N, L, W] of seeds 0, 1, …, without truncation."""
        return generate_ws(self.G, range(self.num), c=self.labels(self.num))

    def labels(self, num: int) -> Tensor | None:
        """Labels [num, C] of seeds 0, 1, …: all classes in turn; None for an unconditional network."""
        classes = self.G.c_dim
        return torch.eye(classes)[torch.arange(num) % classes] if classes else None

    def pictures(self) -> GeneratedPictures:
        """What metrics measure: labels as the data has them."""
        return GeneratedPictures(self.G, seed=0, labels=self.data, lod=self.lod, batch=self.batch)

    def reals(self, num: int) -> Iterator[Tensor]:
        """images_uint8 [n, C, H, W] of some real pictures."""
        assert self.data is not None
        pictures = RealPictures(self.data)
        count = min(num, len(self.data))
        for first in range(0, count, pictures.batch):
            yield pictures(range(first, min(first + pictures.batch, count)))


class Analysis(NamedTuple):
    """One section of the report."""

    title: str
    question: str
    make: Callable[[Subject], Report]
    needs_data: bool = False
    portraits: bool = False
    """Whether it means something only for networks that were trained on the portraits of `styleforge data demo`."""


def report(
    subject: Subject, names: Sequence[str], folder: str | Path, on_section: Callable[[str], None] | None = None
) -> list[Section]:
    """Makes the sections of a report.

    An analysis that this network cannot have is a section that says why.

    Args:
        subject: What to look at.
        names: Names of `ANALYSES`, in the order of the page.
        folder: Where each analysis writes its files, into a folder of its name.
        on_section: Called with the title of each before it begins.

    Raises:
        ValueError: A name that is none.
        OSError: A file cannot be written.
    """
    unknown = [name for name in names if name not in ANALYSES]
    if unknown:
        raise ValueError(f"report: got {unknown[0]!r}, expected names among {', '.join(ANALYSES)}")
    sections = []
    for name in names:
        analysis = ANALYSES[name]
        section = Section(name=name, title=analysis.title, question=analysis.question)
        sections.append(section)
        if analysis.needs_data and subject.data is None:
            section.absent = "This needs real pictures (--data)."
            continue
        if on_section is not None:
            on_section(analysis.title)
        try:
            found = analysis.make(subject)
        except (ValueError, FileNotFoundError) as error:
            section.absent = f"Not measured: {error}."
            continue
        written = found.write(Path(folder) / name)
        section.summary = found.summary()
        section.pictures = [path for path in written if path.suffix in (".png", ".gif")]
        numbers = [path for path in written if path.suffix == ".json"]
        section.numbers = json.loads(numbers[0].read_text(encoding="utf-8")) if numbers else None
    return sections


@dataclass(kw_only=True, slots=True)
class _Samples:
    """Pictures of the first seeds, with and without truncation."""

    sheets: dict[float, Tensor]
    """psi -> images_uint8 [N, C, H, W]."""

    def summary(self) -> str:
        return ""

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        paths = []
        for psi, pictures in self.sheets.items():
            path = Path(folder) / f"seeds 0 to {len(pictures) - 1}, psi {psi:g}.png"
            images.save(images.grid(pictures, 12), path)
            paths.append(path)
        return paths


def _samples(subject: Subject) -> Report:
    seeds = range(36)
    sheets = {}
    for psi in (1.0, 0.7):
        made = generate_images(
            subject.G,
            seeds,
            c=subject.labels(len(seeds)),
            truncation_psi=psi,
            lod=subject.lod,
            batch=subject.batch,
        )
        sheets[psi] = torch.cat([images_uint8 for *_, images_uint8 in made])
    return _Samples(sheets=sheets)


@dataclass(kw_only=True, slots=True)
class _Metrics:
    """Numbers of `styleforge evaluate`."""

    lines: list[dict[str, Any]]
    notes: list[str]

    def summary(self) -> str:
        numbers = {name: value for line in self.lines for name, value in line["results"].items()}
        return "; ".join([", ".join(f"{name} {value:.4g}" for name, value in numbers.items()), *self.notes])

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        path = Path(folder) / "metrics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.lines), encoding="utf-8")
        return [path]


def _metrics(subject: Subject) -> Report:
    thousands = f"{subject.num_fid / 1000:g}k"
    found = measure(subject.pictures(), f"fid{thousands}_full,pr{thousands}3", subject.tools, progress=subject.progress)
    notes = [note for measurement in found for note in measurement.notes]
    return _Metrics(lines=[record(measurement, None) for measurement in found], notes=list(dict.fromkeys(notes)))


def _droplets(subject: Subject) -> Report:
    from styleforge.analysis.droplet_report import survey

    return survey(subject.G, subject.ws, lod=subject.lod, batch=subject.batch, progress=subject.progress)


def _ablation(subject: Subject) -> Report:
    from styleforge.analysis.ablation import box_mask
    from styleforge.analysis.ablation_report import ablation_report
    from styleforge.analysis.activations import layer_names
    from styleforge.analysis.droplets import detect

    G, names = subject.G, layer_names(subject.G, subject.lod)
    layer = next((name for name in names[2:] if name.endswith("conv1")), names[-1])
    found = detect(G, subject.ws, lod=subject.lod, batch=subject.batch).found
    if found.any():
        seeds, regions = found.nonzero()[:4, 0].tolist(), None
    else:  # without droplets: the middle of the picture, where faces and objects are
        height, width = G.config.size
        box = (width // 4, height // 4, width - width // 4, height - height // 4)
        seeds, regions = list(range(4)), box_mask(G, box)
    return ablation_report(G, subject.ws[seeds], layer, seeds=seeds, regions=regions, lod=subject.lod)


def _normalization(subject: Subject) -> Report:
    from styleforge.analysis.normalization import normalization_report

    return normalization_report(subject.G, subject.ws)


def _resolutions(subject: Subject) -> Report:
    from styleforge.analysis.resolutions import ResolutionReport, contributions, parts_sheet

    shares = contributions(subject.G, ws=subject.ws, batch=subject.batch, progress=subject.progress)
    return ResolutionReport(points=[(None, shares)], sheet=parts_sheet(subject.G, subject.ws[:6]))


def _smoothness(subject: Subject) -> Report:
    from styleforge.analysis.jacobian import suggested_rank
    from styleforge.analysis.smoothness import smoothness_report

    if subject.lod:
        raise ValueError(
            f"lod: got {subject.lod:g}, expected 0, since derivatives are those of the whole network; take a snapshot "
            "that has grown up"
        )
    return smoothness_report(
        subject.G,
        subject.ws[: min(subject.num, 16), 0],
        rank=suggested_rank(subject.G),
        batch=subject.batch,
        progress=subject.progress,
    )


def _spectra(subject: Subject) -> Report:
    from styleforge.analysis.spectra import spectra_report

    real = None if subject.data is None else subject.reals(subject.num)
    return spectra_report(
        subject.G, subject.ws, real=real, lod=subject.lod, batch=subject.batch, progress=subject.progress
    )


def _latents(subject: Subject) -> Report:
    from styleforge.analysis.normality_report import normality_report

    return normality_report(subject.G)


def _directions(subject: Subject) -> Report:
    from styleforge.analysis.directions import direction_report
    from styleforge.latents import find_directions

    found = find_directions(subject.G, num=min(6, subject.G.w_dim), progress=subject.progress)
    strengths = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    return direction_report(subject.G, found, subject.ws[:1], strengths, lod=subject.lod, batch=subject.batch)


def _diversity(subject: Subject) -> Report:
    from styleforge.analysis.diversity import diversity_report

    return diversity_report(
        subject.pictures(),
        subject.tools,
        num=subject.num,
        num_fid=min(subject.num_fid, 2000),
        progress=subject.progress,
    )


def _factors(subject: Subject) -> Report:
    from styleforge.analysis.factor_reader import FactorReader
    from styleforge.analysis.factors import factor_report, reader_config

    reader = FactorReader.train_cached(reader_config(subject.G), progress=subject.progress)
    num = max(subject.num, 100)
    return factor_report(
        subject.G,
        num=num,
        c=subject.labels(num),
        lod=subject.lod,
        batch=subject.batch,
        reader=reader,
        progress=subject.progress,
    )


def _phase(subject: Subject) -> Report:
    from styleforge.analysis.factors import reader_config
    from styleforge.analysis.phase import phase_report
    from styleforge.analysis.phase_reader import PhaseReader

    reader = PhaseReader.train_cached(reader_config(subject.G), progress=subject.progress)
    return phase_report(
        subject.G, subject.ws, lod=subject.lod, batch=subject.batch, reader=reader, progress=subject.progress
    )


ANALYSES: dict[str, Analysis] = {
    "samples": Analysis("Pictures", "What the generator makes, without truncation and with it.", _samples),
    "metrics": Analysis(
        "Metrics",
        "How far the distribution of its pictures is from that of the real ones (FID), how many look real (precision), "
        "and how much of the real variety there is (recall).",
        _metrics,
        needs_data=True,
    ),
    "droplets": Analysis(
        "Droplets",
        "Circular artifacts: places where the activations peak in most channels at once. A score of 3 counts as one.",
        _droplets,
    ),
    "ablation": Analysis(
        "Units",
        "What becomes of pictures when the most active feature maps of a region are switched off: of "
        "droplets, or of the middle of the picture where there are none.",
        _ablation,
    ),
    "normalization": Analysis(
        "Normalization", "What normalization does, layer by layer: rho of PIN, or demodulation.", _normalization
    ),
    "resolutions": Analysis(
        "Resolutions",
        "How much each resolution adds to the picture; a network may leave its last ones idle.",
        _resolutions,
    ),
    "smoothness": Analysis(
        "Smoothness",
        "Singular values of dG/dw and path lengths: the flatter and the more even, the better latents can be steered.",
        _smoothness,
    ),
    "spectra": Analysis(
        "Spectra", "Power spectra of the pictures, beside real ones if there are any, and of every layer.", _spectra
    ),
    "latents": Analysis(
        "Latents",
        "Whether latents are normally distributed: not in W; in V, which undoes the last activation, they should be.",
        _latents,
    ),
    "directions": Analysis("Directions", "What changes along the main axes of w.", _directions),
    "diversity": Analysis(
        "Truncation and compression",
        "What the two ways of correcting rare latents cost in variety and identity at the same FID.",
        _diversity,
        needs_data=True,
    ),
    "factors": Analysis(
        "Factors of portraits", "How much pose, mouth, hair and others vary against the data.", _factors, portraits=True
    ),
    "phase": Analysis(
        "Pose of details",
        "Whether eyes, mouth and teeth turn with the head, or stick to places.",
        _phase,
        portraits=True,
    ),
}
"""Name -> what there can be, in the order of the page."""
