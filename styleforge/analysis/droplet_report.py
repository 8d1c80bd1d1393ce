"""Droplets of a checkpoint: how many pictures have one, in which layers, and what it looks like there."""
# Shapes: N batch, n examples, K layers, C channels, H W image size, h w size of a layer's features.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from styleforge import images
from styleforge.analysis.activations import record
from styleforge.analysis.droplets import THRESHOLD, Droplets, detect, peak_map
from styleforge.files import write_json
from styleforge.latents import default_batch, synthesize
from styleforge.networks import Generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_CHANNELS = 8
"""Feature maps of each layer in ``activations.png``."""


@dataclass(kw_only=True, slots=True)
class DropletReport:
    """The droplets of many pictures of one network."""

    layers: list[str]
    """The K style layers, from the base grid to the image."""
    scores: Tensor
    """[N]: as `Droplets.score`."""
    layer_scores: Tensor
    """[N, K]: as `Droplets.layer_scores`."""
    seeds: list[int]
    """Numbers of the n examples: those with the highest scores, the highest first."""
    examples: Droplets
    """The examples."""
    peak_maps: list[Tensor]
    """[h, w] each: the peaks in each example's strongest layer."""
    activations: dict[str, Tensor]
    """[C, h, w] each: all style layers' features of the first example."""

    @property
    def rate(self) -> float:
        """The share of pictures with a droplet."""
        return float((self.scores >= THRESHOLD).double().mean())

    def summary(self) -> str:
        """The report in one sentence."""
        middle, highest = float(self.scores.median()), float(self.scores.max())
        found = int((self.scores >= THRESHOLD).sum())
        return (
            f"{found} of {len(self.scores)} pictures have a droplet ({self.rate:.1%}); scores are {middle:.1f} in the "
            f"middle and {highest:.1f} at most (seed {self.seeds[0]}, {self.examples.strongest[0]}), and "
            f"{THRESHOLD:g} counts as a droplet."
        )

    def numbers(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        by_layer = {
            name: _quantiles(scores) | {"rate": float((scores >= THRESHOLD).double().mean())}
            for name, scores in zip(self.layers, self.layer_scores.T, strict=True)
        }
        examples = [
            {
                "seed": seed,
                "score": float(self.examples.score[i]),
                "layer": self.examples.strongest[i],
                "centre": self.examples.centres[i].tolist(),
                "covered": float(self.examples.masks[i].double().mean()),
            }
            for i, seed in enumerate(self.seeds)
        ]
        return {
            "rate": self.rate,
            "threshold": THRESHOLD,
            "scores": _quantiles(self.scores),
            "layers": by_layer,
            "examples": examples,
        }

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``droplets.json``, ``droplets.png``, ``activations.png`` and ``scores.png``.

        Args:
            folder: Where; made if it is missing.
            settings: How the pictures were made, as JSON objects, to be kept beside the numbers.

        Returns:
            The files.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        folder = Path(folder)
        paths = [folder / name for name in ("droplets.json", "droplets.png", "activations.png", "scores.png")]
        settings = {"num": len(self.scores), **(settings or {})}
        write_json(paths[0], {"summary": self.summary(), "settings": settings, **self.numbers()})
        plot_examples(self, paths[1])
        plot_activations(self, paths[2])
        plot_scores(self, paths[3])
        return paths


def survey(
    G: Generator,
    ws: Tensor,
    *,
    examples: int = 8,
    noise_mode: str = "const",
    lod: float = 0.0,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DropletReport:
    """Looks for droplets in many pictures.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W], of the seeds from 0 to N - 1.
        examples: How many pictures to show, those with the highest scores.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time; None for what memory suggests.
        progress: Called with the number done and the total.

    Raises:
        ValueError: No ws, or an argument that this network cannot take.
        MemoryError: Memory ran out.
    """
    batch = batch or default_batch(G)
    scores, layer_scores = [], []
    for i in range(0, max(len(ws), 1), batch):
        part = ws[i : i + batch]
        seeds = range(i, i + len(part))
        droplets = detect(G, part, noise_mode=noise_mode, noise_seeds=seeds, lod=lod, batch=batch)
        scores.append(droplets.score)
        layer_scores.append(droplets.layer_scores)
        if progress is not None:
            progress(i + len(part), len(ws))
    all_scores = torch.cat(scores)
    worst: list[int] = all_scores.argsort(descending=True, stable=True)[:examples].tolist()
    peak_maps: list[Tensor] = []
    activations: dict[str, Tensor] = {}
    shown = detect(G, ws[worst], noise_mode=noise_mode, noise_seeds=worst, lod=lod, batch=batch)
    with record(G) as features:
        pictures = synthesize(G, ws[worst], noise_mode=noise_mode, noise_seeds=worst, lod=lod, batch=1)
        for i, _ in enumerate(pictures):
            peak_maps.append(peak_map(features[shown.strongest[i]])[0].cpu())
            activations = activations or {name: x[0].float().cpu() for name, x in features.items()}
    return DropletReport(
        layers=droplets.layers,
        scores=all_scores,
        layer_scores=torch.cat(layer_scores),
        seeds=worst,
        examples=shown,
        peak_maps=peak_maps,
        activations=activations,
    )


def viewable(x: Tensor) -> Tensor:
    """Feature maps brought into [-1, 1] for the eye: each less its median, over its largest distance from it.

    Args:
        x: [C, h, w].

    Returns:
        [C, h, w]; 0 where a map is flat.
    """
    x = x - x.flatten(1).median(1).values[:, None, None]
    return x / x.abs().amax([1, 2], keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def outlined(image_uint8: Tensor, mask: Tensor) -> Tensor:
    """A picture [C, H, W] as RGB [3, H, W], with a red ring around a mask [H, W]."""
    ring = torch.nn.functional.max_pool2d(mask[None].float(), 5, stride=1, padding=2)[0] > 0
    inner = torch.nn.functional.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0] > 0
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    rgb = images.rgb_view(image_uint8[None, :4] if len(image_uint8) <= 4 else image_uint8[None, :3])[0]
    return torch.where(ring & ~inner, red, rgb)


def plot_examples(report: DropletReport, path: str | Path) -> None:
    """Draws the examples: picture, droplet ringed in red, peaks in its strongest layer, white from the threshold on.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    count = len(report.seeds)
    with plots.figure(path, 3, count, size=(1.5 * count + 0.4, 5.2), title=report.summary().split(";")[0]) as axes:
        for ax in axes:
            bare(ax)
        for i, seed in enumerate(report.seeds):
            picture, mask = report.examples.images_uint8[i], report.examples.masks[i]
            axes[i].set_title(f"seed {seed}")
            axes[i].imshow(images.to_pil(picture), cmap="gray", interpolation="nearest")
            axes[count + i].set_title(f"score {report.examples.score[i]:.1f}")
            axes[count + i].imshow(images.to_pil(outlined(picture, mask)), interpolation="nearest")
            axes[2 * count + i].set_title(report.examples.strongest[i], fontsize=8)
            axes[2 * count + i].imshow(
                report.peak_maps[i].numpy(), cmap="gray", vmin=0, vmax=THRESHOLD, interpolation="nearest"
            )


def plot_activations(report: DropletReport, path: str | Path) -> None:
    """Draws feature maps of the first example at each resolution, normalised to the viewable range.

    As Figures 1 and 15 of Karras et al. 2020 and 3 and 11 of Tan et al.: green is above a map's median, purple below.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    layers = [name for name in report.layers if name.endswith("conv1") or name == report.examples.strongest[0]]
    size = (1.2 * SHOWN_CHANNELS + 0.6, 1.2 * len(layers) + 0.5)
    title = f"The first {SHOWN_CHANNELS} feature maps of each resolution, seed {report.seeds[0]}"
    with plots.figure(path, len(layers), SHOWN_CHANNELS, size=size, title=title) as axes:
        for ax in axes:
            bare(ax)
        for row, name in enumerate(layers):
            axes[row * SHOWN_CHANNELS].set_ylabel(name)
            for k, feature_map in enumerate(viewable(report.activations[name][:SHOWN_CHANNELS])):
                ax = axes[row * SHOWN_CHANNELS + k]
                ax.imshow(feature_map.numpy(), cmap="PRGn", vmin=-1, vmax=1, interpolation="nearest")


def plot_scores(report: DropletReport, path: str | Path) -> None:
    """Draws the scores by layer, and the magnitude of each channel at the first example's peak and elsewhere.

    The second is Figure 4 of Tan et al.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    example = report.examples.strongest[0]
    x, y = report.examples.places[0, report.layers.index(example)].tolist()
    magnitudes = report.activations[example].abs().numpy()  # [C, h, w]
    peak, usual = magnitudes[:, y, x], magnitudes.reshape(len(magnitudes), -1)
    order = peak.argsort()[::-1]
    with plots.figure(path, 1, 2, size=(9.6, 3.6)) as (left, right):
        draw_layer_scores(left, {"": report})
        right.plot(peak[order], label=f"at the peak ({x}, {y})")
        right.plot(np.quantile(usual, 0.95, axis=1)[order], label="95 % of the pixels stay below")
        right.plot(np.median(usual, axis=1)[order], label="median pixel")
        right.set_title(f"|activation| in {example}, seed {report.seeds[0]}")
        right.set_xlabel("channels, sorted")
        right.set_ylim(bottom=0)
        right.legend()


def draw_layer_scores(ax: Axes, reports: Mapping[str, DropletReport]) -> None:
    """Draws the scores by layer: the median of the pictures as a line, 5 to 95 % of them as a band.

    Args:
        ax: Where to draw.
        reports: What the lines are called, and networks of the same size.
    """
    names = max((report.layers for report in reports.values()), key=len)  # config A has a layer more than B to F
    for label, report in reports.items():
        low, middle, high = np.quantile(report.layer_scores.numpy(), (0.05, 0.5, 0.95), axis=0)
        places = [names.index(name) for name in report.layers]
        line = ax.plot(places, middle, marker="o", markersize=3, label=label)
        ax.fill_between(places, low, high, alpha=0.2, linewidth=0, color=line[0].get_color())
    ax.axhline(THRESHOLD, color="black", linewidth=0.8, linestyle="--")
    ax.set_yscale("log")
    ax.set_title("score by layer: median, 5 to 95 %; dashed: a droplet")
    ax.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor")


def bare(ax: Axes) -> None:
    """Leaves axes for a picture: no ticks, no frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _quantiles(values: Tensor) -> dict[str, float]:
    """A distribution in a few numbers."""
    return {
        "median": float(values.double().median()),
        "q95": float(values.double().quantile(0.95)),
        "max": float(values.max()),
    }
