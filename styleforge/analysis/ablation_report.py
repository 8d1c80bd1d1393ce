"""Unit ablation of some pictures, in numbers and pictures: how an artifact moves or recolours without its units."""
# Shapes: N batch, C channels (units), H W image size.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from styleforge.analysis.ablation import (
    Ablated,
    ablate_and_detect,
    ablate_in_turn,
    has_style_biases,
    rank_units,
    redraw_noise,
    style_biases,
)
from styleforge.analysis.droplet_report import bare, outlined
from styleforge.analysis.droplets import THRESHOLD, Droplets
from styleforge.files import write_json
from styleforge.images import rgb_view, to_pil
from styleforge.networks import Generator

LISTED = 16
"""Strongest units of each picture that the numbers list."""


@dataclass(kw_only=True, slots=True)
class AblationReport:
    """What some pictures are without some units of a layer."""

    layer: str
    """The layer."""
    seeds: list[int]
    """Of the N pictures."""
    regions: Tensor
    """[N, H, W] bool: where units were ranked and colours are compared."""
    ranked: Tensor
    """[N, C]: the units of each picture, the strongest in its region first."""
    activations: Tensor
    """[N, C]: their mean magnitudes in the region, in order of the units' numbers."""
    steps: list[Ablated]
    """The pictures as they are, and then without more and more units, or without each of those asked for."""
    kept: list[Ablated]
    """The pictures with nothing but one unit, or the units asked for."""
    biases: tuple[Tensor, Tensor] | None
    """(|b_sigma| [C], |b_mu| [C]) of the layer; None for networks that have no such styles."""
    redraws: Droplets | None
    """The first picture with other noise; None for networks without noise."""

    def summary(self) -> str:
        """The report in one sentence."""
        first, found = self._numbers(self.steps[1]), self.steps[0].droplets.found
        moved = [picture["moved"] for picture in first if picture["moved"] is not None]
        gone = sum(bool(had) and picture["score"] < THRESHOLD for had, picture in zip(found, first, strict=True))
        colour = sum(picture["colour_change"] for picture in first) / len(first)
        droplets = f"droplets move by {sum(moved) / len(moved):.1f} pixels in the mean, " if moved else ""
        if found.any():
            droplets += f"{gone or 'no'} droplet{'' if gone == 1 else 's'} of {int(found.sum())} vanish, and "
        return f"Without one unit of {self.layer}, {droplets}the region's colour changes by {colour:.0f} of 255."

    def numbers(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        rank = [
            {
                "seed": seed,
                "units": units[:LISTED].tolist(),
                "activations": strengths[units[:LISTED]].tolist(),
                "mean_of_all": float(strengths.mean()),
            }
            for seed, units, strengths in zip(self.seeds, self.ranked, self.activations, strict=True)
        ]
        values: dict[str, Any] = {
            "layer": self.layer,
            "ranking": rank,
            "steps": [self._numbers(step) for step in self.steps],
            "only": [self._numbers(step) for step in self.kept],
        }
        if self.biases is not None:
            values["biases"] = {"b_sigma": self.biases[0].tolist(), "b_mu": self.biases[1].tolist()}
        if self.redraws is not None:
            centres = self.redraws.centres
            values["noise"] = {
                "seed": self.seeds[0],
                "scores": self.redraws.score.tolist(),
                "centres": centres.tolist(),
                "spread_of_centres": float((centres - centres.mean(0)).square().sum(1).mean().sqrt()),
            }
        return values

    def _numbers(self, step: Ablated) -> list[dict[str, Any]]:
        """One picture each: its units, droplet, and how far that has moved and the region's colour has changed."""
        before, after = self.steps[0].droplets, step.droplets
        pictures = []
        for i, seed in enumerate(self.seeds):
            region = self.regions[i]
            colours = [_colour(droplets.images_uint8[i], region) for droplets in (before, after)]
            both = bool(before.found[i] and after.found[i])
            pictures.append(
                {
                    "seed": seed,
                    "units": step.units[i],
                    "score": float(after.score[i]),
                    "layer": after.strongest[i],
                    "centre": after.centres[i].tolist(),
                    "moved": float((after.centres[i] - before.centres[i]).norm()) if both else None,
                    "colour": colours[1].tolist(),
                    "colour_change": float((colours[1] - colours[0]).abs().mean()),
                }
            )
        return pictures

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``ablate.json``, ``ablate.png``, and where they apply ``biases.png`` and ``noise.png``.

        Args:
            folder: Where; made if it is missing.
            settings: How the pictures were made, as JSON objects, to be kept beside the numbers.

        Returns:
            The files.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        folder = Path(folder)
        paths = [folder / "ablate.json", folder / "ablate.png"]
        write_json(paths[0], {"summary": self.summary(), "settings": dict(settings or {}), **self.numbers()})
        plot_ablation(self, paths[1])
        if self.biases is not None:
            paths.append(folder / "biases.png")
            plot_biases(self, paths[-1])
        if self.redraws is not None:
            paths.append(folder / "noise.png")
            plot_redraws(self, paths[-1])
        return paths


def ablation_report(
    G: Generator,
    ws: Tensor,
    layer: str,
    *,
    seeds: Sequence[int],
    units: Sequence[int] | None = None,
    steps: int = 4,
    regions: Tensor | None = None,
    redraws: int = 6,
    noise_mode: str = "const",
    lod: float = 0.0,
) -> AblationReport:
    """Switches units off, and looks at what becomes of the pictures.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W], of few pictures, since they are made at once.
        layer: Name of a style layer.
        seeds: Of the pictures, for the report alone.
        units: Which to switch off, one by one and all; and to keep alone, all of them. None for those that are
            strongest in each picture's region, one more at each step; and to keep alone, each of them.
        steps: How many of the strongest.
        regions: [N or 1, H, W] bool; None for each picture's droplet.
        redraws: How often the noise of the first picture is drawn anew.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network.

    Raises:
        ValueError: No such layer or unit, or a picture without a region.
    """
    N = len(ws)

    def attempt(chosen: Sequence[Sequence[int]], keep: bool = False) -> Ablated:
        return ablate_and_detect(G, ws, layer, chosen, keep=keep, noise_mode=noise_mode, lod=lod)

    fixed = regions
    if units is None:
        results = ablate_in_turn(G, ws, layer, steps, regions=regions, noise_mode=noise_mode, lod=lod)
        last = results[-1].units
        kept = [attempt([[row[k]] for row in last], keep=True) for k in range(len(last[0]))]
    else:
        alone = [[unit] for unit in units]
        choices = [[], *alone, *([list(units)] if len(units) > 1 else [])]
        results = [attempt([choice] * N) for choice in choices]
        kept = [attempt([list(units)] * N, keep=True)]
    regions = results[0].droplets.masks if fixed is None else fixed.expand(N, -1, -1)
    ranked, activations = rank_units(G, ws, layer, regions, noise_mode=noise_mode, lod=lod)
    has_noise = redraws > 0 and len(G.synthesis.noise_inputs(lod)) > 0
    return AblationReport(
        layer=layer,
        seeds=list(seeds),
        regions=regions,
        ranked=ranked,
        activations=activations,
        steps=results,
        kept=kept,
        biases=style_biases(G, layer) if has_style_biases(G, layer) else None,
        redraws=redraw_noise(G, ws[0], redraws, lod=lod) if has_noise else None,
    )


def plot_ablation(report: AblationReport, path: str | Path) -> None:
    """Draws one row for each picture: as it is, without units, with nothing but one; droplets are ringed in red.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    steps = [*report.steps, *report.kept]
    rows, columns = len(report.seeds), len(steps)
    title = f"Units of {report.layer}, switched off"
    with plots.figure(path, rows, columns, size=(1.45 * columns + 0.4, 1.75 * rows + 0.4), title=title) as axes:
        for i, seed in enumerate(report.seeds):
            for k, step in enumerate(steps):
                ax = axes[i * columns + k]
                bare(ax)
                numbers = ", ".join(map(str, step.units[i]))
                ax.set_title(
                    f"{'only' if step.keep else 'without'} {numbers}" if numbers else f"seed {seed}", fontsize=8
                )
                picture = outlined(step.droplets.images_uint8[i], step.droplets.masks[i])
                ax.imshow(to_pil(picture), interpolation="nearest")


def plot_redraws(report: AblationReport, path: str | Path) -> None:
    """Draws the first picture with other noise, and how much each pixel varies with it (Figure 5 of Tan et al.).

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    assert report.redraws is not None
    pictures, masks = report.redraws.images_uint8, report.redraws.masks
    spread = rgb_view(pictures[:, :4]).float().std(0, correction=0).mean(0)  # [H, W]
    count = len(pictures) + 1
    title = f"Seed {report.seeds[0]}: w fixed, noise drawn anew"
    with plots.figure(path, 1, count, size=(1.5 * count + 0.4, 2.1), title=title) as axes:
        for i, ax in enumerate(axes[:-1]):
            bare(ax)
            ax.set_title(f"score {report.redraws.score[i]:.1f}", fontsize=8)
            ax.imshow(to_pil(outlined(pictures[i], masks[i])), interpolation="nearest")
        bare(axes[-1])
        axes[-1].set_title("standard deviation", fontsize=8)
        axes[-1].imshow(spread.numpy(), cmap="gray", vmin=0, interpolation="nearest")


def plot_biases(report: AblationReport, path: str | Path) -> None:
    """Draws |b_sigma| over |b_mu| of each unit; those strongest in a picture's region are ringed (Figure 8).

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    assert report.biases is not None
    sigma, mu = (biases.numpy() for biases in report.biases)
    with plots.figure(path, title=f"Styles of {report.layer} where w is zero") as (ax,):
        ax.scatter(mu, sigma, s=14)
        strongest = report.ranked[:, 0].unique().tolist()
        ax.scatter(mu[strongest], sigma[strongest], s=80, facecolors="none", edgecolors=plots.COLOURS[1])
        for unit in strongest:
            ax.annotate(f"  {unit}", (mu[unit], sigma[unit]), fontsize=8)
        ax.set_xlabel(r"$|b_\mu|$")
        ax.set_ylabel(r"$|b_\sigma|$")


def _colour(image_uint8: Tensor, region: Tensor) -> Tensor:
    """The mean colour [C] of a picture [C, H, W] in a region [H, W]."""
    return image_uint8[:, region].double().mean(1)
