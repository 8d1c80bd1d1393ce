"""Metrics of a generator: which pictures are needed, what is taken from them, and the numbers in the end."""
# Shapes: N pictures, F number of features, K classes.

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from styleforge import __version__, dist
from styleforge.data import ImageDataset
from styleforge.downloads import cache_dir
from styleforge.features import Extractor
from styleforge.files import atomic_path
from styleforge.metrics.collect import MomentSink, Progress, RowSink, Sink, collect
from styleforge.metrics.fid import frechet_distance
from styleforge.metrics.inception_score import inception_score
from styleforge.metrics.kid import kernel_distance
from styleforge.metrics.pictures import GeneratedPictures, Pictures, RealPictures
from styleforge.metrics.ppl import path_length, path_length_distances
from styleforge.metrics.precision_recall import precision_recall
from styleforge.metrics.recipes import Recipe, parse, parse_list
from styleforge.metrics.records import Measurement
from styleforge.metrics.requirements import num_real, open_data, require_measurable, require_same_tools
from styleforge.metrics.tools import Tools
from styleforge.networks import Generator

STALE_SEC = 7 * 24 * 60 * 60
"""What killed evaluations left in the cache is kept so long."""


def evaluate(
    G: Generator,
    data: ImageDataset | str | Path | None,
    names: str | Sequence[str],
    extractor: str | nn.Module | Extractor | Tools | None = None,
    seed: int = 0,
    *,
    batch: int | None = None,
) -> dict[str, float]:
    """Measures a generator; `measure` says more and takes more.

    Args:
        G: The generator.
        data: Real pictures; None where none are needed.
        names: Metrics, such as ``fid50k_full,pr50k3_full`` or a list; see `styleforge.metrics.recipes.parse`.
        extractor: The feature network; None for the published ones. See `styleforge.metrics.tools.Tools`.
        seed: Chooses latents, labels and noise: the same seed gives the same numbers.
        batch: Pictures at a time.

    Returns:
        Number by name; ``@extractor`` stands behind a name where it is not the published network's number.

    Raises:
        ValueError: As `measure`.
        OSError: As `measure`.
    """
    tools = extractor if isinstance(extractor, Tools) else Tools(extractor=extractor, device=G.w_avg.device)
    pictures = GeneratedPictures(G, seed=seed, labels=open_data(data, G), batch=batch)
    results: dict[str, float] = {}
    for measurement in measure(pictures, names, tools):
        results |= measurement.results
    return results


def measure(
    pictures: GeneratedPictures,
    names: str | Sequence[str],
    tools: Tools,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    keep: bool = False,
) -> list[Measurement]:
    """Measures generated pictures, all metrics on the same ones, each network run once.

    What real pictures give is kept in the cache. What generated ones give is kept until all is done: a killed
    evaluation that is started again goes on. With ``keep`` the numbers stay until `forget`, so that a command that
    measures several generators goes on, too. Under ``torchrun`` the processes share the work; every rank must call
    this, and every rank gets the numbers.

    Args:
        pictures: The generated pictures, and with them the dataset.
        names: As in `evaluate`.
        tools: The feature networks.
        cache: Where to keep things; None for ``metrics`` in `styleforge.downloads.cache_dir`.
        progress: Called with (done, total) samples of the work at hand.
        keep: Keep the numbers in the cache.

    Returns:
        One for each name, in their order.

    Raises:
        ValueError: An unknown name, too few pictures, no dataset where one is needed, pictures that are not finite.
        OSError: Weights, pictures or the cache cannot be read, or (`styleforge.dist.LostRankError`) a process died.
        MemoryError: Memory ran out.
    """
    recipes = parse_list(names)
    with dist.together():
        job = _Job(pictures, tools, cache or cache_dir() / "metrics", progress)
        for recipe in recipes:
            require_measurable(recipe, pictures)
        tools.load([recipe.kind for recipe in recipes], pictures.G)
        known = {recipe.name: job.recall(recipe) for recipe in recipes} if dist.rank() == 0 else {}
    known = dist.broadcast_object(known)
    require_same_tools(recipes, tools)
    unknown = [recipe for recipe in recipes if known[recipe.name] is None]
    job.collect_features(unknown)
    found = {recipe.name: job.measure(recipe) for recipe in unknown}
    with dist.together():
        job.clean_up(found if keep else {})
    return [found.get(recipe.name) or Measurement(**known[recipe.name]) for recipe in recipes]


def forget(pictures: GeneratedPictures, *, cache: Path | None = None) -> None:
    """Removes the numbers that `measure` was told to keep, of all metrics of these pictures; rank 0 does it."""
    if dist.rank() == 0:
        folder = _folder(pictures, cache or cache_dir() / "metrics")
        for path in folder.glob("measured-*.json"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others use it
            folder.rmdir()


def _folder(pictures: GeneratedPictures, cache: Path) -> Path:
    """Where things about these pictures are kept."""
    return cache / f"generated-{pictures.key[:24]}"


class _Job:
    """One call of `measure`."""

    def __init__(self, pictures: GeneratedPictures, tools: Tools, cache: Path, progress: Progress | None) -> None:
        self.pictures, self.tools, self.progress = pictures, tools, progress
        self.device = pictures.G.w_avg.device
        self.dataset = pictures.labels
        self.reals: dict[bool, RealPictures] = {}
        """Without mirror images, for metrics whose names end in ``_full``, and with them, where there are any."""
        if self.dataset is not None:
            self.reals = {full: RealPictures(self.dataset, mirror=not full) for full in (True, False)}
        self.fake_folder = _folder(pictures, cache)
        self.cache = cache
        self.sinks: dict[tuple[str, str], Sink] = {}
        """(real or generated, recipe's name) -> what was taken from the pictures."""

    def recall(self, recipe: Recipe) -> dict[str, Any] | None:
        """The fields of the measurement, if an earlier call has kept them."""
        with contextlib.suppress(OSError, ValueError):  # not there, or damaged
            values = json.loads(self._kept(recipe).read_text(encoding="utf-8"))
            return values if {f.name for f in dataclasses.fields(Measurement)} == set(values) else None
        return None

    def _kept(self, recipe: Recipe) -> Path:
        """Where a measurement is kept: a name for all that its numbers follow from."""
        tool = self.tools.tool_for(recipe.kind)
        reals = self.reals[recipe.full].key if recipe.max_real != 0 and self.reals else ""
        parts = (recipe, tool.name, tool.checksum, reals, __version__)
        return self.fake_folder / f"measured-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.json"

    def collect_features(self, recipes: Sequence[Recipe]) -> None:
        """Takes from all pictures, real and generated, what the recipes need."""
        sources: list[tuple[str, Pictures, Path, Callable[[Recipe], int]]] = [
            ("generated", self.pictures, self.fake_folder, lambda recipe: recipe.num)
        ]
        for full, reals in self.reals.items():
            folder = self.cache / f"real-{reals.key[:24]}"
            sources.insert(0, ("real", reals, folder, partial(self._count_real, full)))
        for source, pictures, folder, count in sources:
            sinks: dict[str, Sink] = {}
            extractors: dict[str, Extractor] = {}
            for recipe in recipes:
                if recipe.kind == "ppl" or count(recipe) == 0:
                    continue
                extractor = self.tools.extractor_for(recipe.kind)
                extractors[_tag(extractor)] = extractor
                sink = self._sink(recipe, extractor, count(recipe))
                self.sinks[source, recipe.name] = sinks.setdefault(sink.name, sink)
            if sinks:
                work = partial(_extract, pictures, extractors)
                collect(work, list(sinks.values()), folder, self.device, self.progress)

    def _count_real(self, full: bool, recipe: Recipe) -> int:
        """How many real pictures a recipe takes from one of `reals`."""
        return num_real(recipe, self.dataset) if recipe.full == full else 0

    def _sink(self, recipe: Recipe, extractor: Extractor, num: int) -> Sink:
        tag = _tag(extractor)
        if recipe.kind == "fid":
            return MomentSink(f"{tag}.features", num, extractor.num_features)
        if recipe.kind != "is":
            return RowSink(f"{tag}.features", num, extractor.num_features)
        return RowSink(f"{tag}.logits", num, self.tools.num_classes)

    def measure(self, recipe: Recipe) -> Measurement:
        """The number or numbers of a recipe."""
        start_time = time.perf_counter()
        tool = self.tools.tool_for(recipe.kind)
        if recipe.kind == "ppl":
            distances = self._path_lengths(recipe)  # every rank takes part
        results: dict[str, float] = {}
        with warnings.catch_warnings(record=True) as caught, dist.together():
            warnings.simplefilter("always")  # whatever filters a program has, notes are notes
            if dist.rank() == 0:
                results = {"": path_length(distances)} if recipe.kind == "ppl" else self._numbers(recipe)
        notes = [str(warning.message) for warning in caught]
        results, notes = dist.broadcast_object([results, notes])
        count = num_real(recipe, self.dataset)
        if recipe.max_real and count < recipe.max_real and not recipe.full:
            notes.append(f"{recipe.name}: the dataset has {count} pictures, fewer than {recipe.max_real}; all count")
        suffix = self.tools.suffix(recipe.kind)
        return Measurement(
            metric=recipe.name + suffix,
            results={recipe.name + part + suffix: value for part, value in results.items()},
            num_generated=recipe.num,
            num_real=count,
            mirror=count > 0 and self.reals[recipe.full].mirror,
            seed=self.pictures.seed,
            extractor=tool.name,
            extractor_checksum=tool.checksum,
            resize=tool.resize if isinstance(tool, Extractor) else "box-to-256",
            truncation_psi=self.pictures.truncation_psi,
            transform=self.pictures.transform_name,
            lod=self.pictures.lod,
            seconds=time.perf_counter() - start_time,
            notes=notes,
        )

    def _numbers(self, recipe: Recipe) -> dict[str, float]:
        """Number by the end of its name, from what was collected; on rank 0."""
        fake, real = self.sinks["generated", recipe.name], self.sinks.get(("real", recipe.name))
        if isinstance(fake, MomentSink) and isinstance(real, MomentSink):
            a, b = real.moments, fake.moments
            return {"": frechet_distance(a.mean, a.covariance, b.mean, b.covariance)}
        assert isinstance(fake, RowSink)
        if recipe.kind == "is":
            mean, std = inception_score(torch.from_numpy(fake.rows))
            return {"_mean": mean, "_std": std}
        assert isinstance(real, RowSink)
        if recipe.kind == "kid":
            mean, _ = kernel_distance(fake.rows, real.rows, seed=self.pictures.seed)
            return {"": mean}
        device = "cpu" if self.device.type == "mps" else self.device  # MPS has no float64
        precision, recall = precision_recall(real.rows, fake.rows, recipe.k, device=device)
        return {"_precision": precision, "_recall": recall}

    def _path_lengths(self, recipe: Recipe) -> Tensor:
        """Untrimmed distances of all pairs [num], on rank 0."""
        distance, pictures = self.tools.distance_for_paths(), self.pictures
        kind = f"{recipe.space}{recipe.sampling}{'-crop' if recipe.crop else ''}"
        sink = RowSink(f"{distance.name}-{distance.checksum[:12]}.{kind}", recipe.num, 1, np.float64)

        def work(chunk: range, wanted: set[str]) -> dict[str, Tensor]:
            values = path_length_distances(
                pictures.G,
                distance,
                space=recipe.space,
                sampling=recipe.sampling,
                num_samples=recipe.num,
                seed=pictures.seed,
                crop=recipe.crop,
                c=pictures.c(chunk),
                indices=chunk,  # in batches of a fixed size, since a step of 1e-4 makes rounding errors count
            )
            return {sink.output: values[:, None]}

        self.sinks["generated", recipe.name] = sink
        collect(work, [sink], self.fake_folder, self.device, self.progress)
        # Rank 0 alone has the rows when they were complete before.
        return torch.from_numpy(np.array(sink.rows[:, 0])) if dist.rank() == 0 else torch.empty(0)

    def clean_up(self, keep: Mapping[str, Measurement]) -> None:
        """Removes what generated pictures gave, now that the numbers are there, and what is stale; on rank 0.

        Another process may measure the same pictures with other metrics: its files stay.

        Args:
            keep: Measurements to keep, by their recipes' names.
        """
        if dist.rank() != 0:
            return
        for name, measurement in keep.items():
            with atomic_path(self._kept(parse(name))) as temporary:
                temporary.write_text(json.dumps(dataclasses.asdict(measurement)), encoding="utf-8")
        for (source, _), sink in self.sinks.items():
            if source == "generated":
                sink.remove(self.fake_folder)
        with contextlib.suppress(OSError):  # not empty
            self.fake_folder.rmdir()
        for folder in self.cache.glob("generated-*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > STALE_SEC:
                    shutil.rmtree(folder)


def _tag(extractor: Extractor) -> str:
    return f"{extractor.name}-{extractor.checksum[:12]}"


def _extract(
    pictures: Pictures, extractors: Mapping[str, Extractor], chunk: range, wanted: set[str]
) -> dict[str, Tensor]:
    """The outputs that are wanted, of a chunk's pictures."""
    parts: dict[str, list[Tensor]] = {}
    for first in range(chunk.start, chunk.stop, pictures.batch):
        images_uint8 = pictures(range(first, min(first + pictures.batch, chunk.stop)))
        for tag, extractor in extractors.items():
            if not {f"{tag}.features", f"{tag}.logits"} & wanted:
                continue
            features, logits = extractor(images_uint8)
            parts.setdefault(f"{tag}.features", []).append(features)
            if logits is not None:
                parts.setdefault(f"{tag}.logits", []).append(logits)
    return {name: torch.cat(values) for name, values in parts.items()}
