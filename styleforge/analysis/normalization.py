"""What the normalizations of a trained generator came to: rho of PIN, or demodulation coefficients."""
# Shapes: N batch, C channels, L number of ws, W length of w.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from styleforge.analysis.activations import find_layer, layer_names
from styleforge.files import write_json
from styleforge.networks import Generator
from styleforge.networks.style_layers import AdaINEpilogue, AdaINLayer, ModulatedLayer
from styleforge.ops.modulated_conv2d import demodulation_coefficients

Quantity = Literal["rho", "demodulation"]


def rho_by_layer(G: Generator) -> dict[str, Tensor]:
    """The mixture of PIN, rho·PN(x) + (1 - rho)·IN(x), by layer (Tan et al., Eq. 7).

    Args:
        G: The generator.

    Returns:
        rho [C] of each style layer, clipped to [0, 1], on the CPU: 0 is instance norm, 1 is pixel norm.

    Raises:
        ValueError: A network without PIN.
    """
    if G.config.style_block != "pixel_instance":
        raise ValueError(
            f"rho: got a network with the style block {G.config.style_block!r}, expected 'pixel_instance' (PIN), the "
            "only one that has it; train one with --set generator.style_block=pixel_instance"
        )
    values = {}
    for name in layer_names(G):
        part = find_layer(G, name)
        epilogue = part.epilogue if isinstance(part, AdaINLayer) else part
        assert isinstance(epilogue, AdaINEpilogue) and epilogue.norm.rho is not None
        values[name] = epilogue.norm.rho.detach().float().cpu().clamp(0, 1)
    return values


@torch.no_grad()
def demodulation_by_layer(G: Generator, ws: Tensor) -> dict[str, Tensor]:
    """The factors of demodulation, by layer (Karras et al. 2020, Eq. 3).

    Args:
        G: The generator.
        ws: [N, L, W].

    Returns:
        Coefficients [N, C] of each style layer, on the CPU: what its feature maps are multiplied by.

    Raises:
        ValueError: A network without demodulation.
    """
    if G.config.style_block != "demodulation":
        raise ValueError(
            f"demodulation: got a network with the style block {G.config.style_block!r}, expected 'demodulation', as "
            "configs B to F have it; choose such a network"
        )
    values = {}
    for i, name in enumerate(layer_names(G)):
        layer = find_layer(G, name)
        assert isinstance(layer, ModulatedLayer)
        w = ws[:, i].to(G.w_avg.device)
        styles = w.new_ones(len(w), layer.weight.shape[1]) if layer.affine is None else layer.affine(w)  # [N, I]
        values[name] = demodulation_coefficients(layer.weight * layer.weight_gain, styles).float().cpu()
    return values


@dataclass(kw_only=True, slots=True)
class NormalizationReport:
    """The values by layer, and their histograms."""

    quantity: Quantity
    """``rho`` of PIN, or ``demodulation`` coefficients."""
    values: dict[str, Tensor]
    """rho [C], or coefficients [N, C], of each style layer."""

    def summary(self) -> str:
        """The report in one sentence."""
        first, *_, last = self.values
        means = {name: float(values.mean()) for name, values in self.values.items()}
        if self.quantity == "rho":
            return (
                f"rho is {means[first]:.2f} in the mean of {first} and {means[last]:.2f} of {last}; "
                "0 is instance norm, 1 is pixel norm."
            )
        low, high = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
        return f"Demodulation multiplies by {means[low]:.3g} in the mean of {low} to {means[high]:.3g} of {high}."

    def numbers(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {
            "quantity": self.quantity,
            "layers": {name: self._stats(values) for name, values in self.values.items()},
        }

    def _stats(self, values: Tensor) -> dict[str, Any]:
        flat = values.double().flatten()
        stats: dict[str, Any] = {
            "mean": float(flat.mean()),
            "std": float(flat.std(correction=0)),
            "min": float(flat.min()),
            "max": float(flat.max()),
        }
        if self.quantity == "rho":
            return stats | {
                "instance_norm": float((flat < 0.05).double().mean()),
                "pixel_norm": float((flat > 0.95).double().mean()),
                "values": flat.tolist(),
            }
        # How much of the spread lies between pictures: what demodulation does that a constant could not.
        relative = values.double() / values.double().mean(0)
        return stats | {"variation_over_w": float(relative.std(0, correction=0).mean())}

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``normalization.json`` and ``normalization.png``.

        Args:
            folder: Where; made if it is missing.
            settings: How the values were made, as JSON objects, to be kept beside the numbers.

        Returns:
            The files.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        paths = [Path(folder) / "normalization.json", Path(folder) / "normalization.png"]
        write_json(paths[0], {"summary": self.summary(), "settings": dict(settings or {}), **self.numbers()})
        plot_normalization(self, paths[1])
        return paths


def normalization_report(G: Generator, ws: Tensor, quantity: Quantity | None = None) -> NormalizationReport:
    """Reads the normalizations of a network.

    Args:
        G: The generator.
        ws: [N, L, W], for demodulation.
        quantity: ``rho``, ``demodulation``, or None for the one that the network has.

    Raises:
        ValueError: The network has it not.
    """
    if quantity is None and G.config.style_block not in ("pixel_instance", "demodulation"):
        raise ValueError(
            f"normalization: got a network with the style block {G.config.style_block!r}, which has nothing to show, "
            "expected 'pixel_instance' (PIN), which has rho, or 'demodulation' (configs B to F)"
        )
    quantity = quantity or ("rho" if G.config.style_block == "pixel_instance" else "demodulation")
    values = rho_by_layer(G) if quantity == "rho" else demodulation_by_layer(G, ws)
    return NormalizationReport(quantity=quantity, values=values)


def plot_normalization(report: NormalizationReport, path: str | Path) -> None:
    """Draws one histogram for each layer (Figure 15 of Tan et al. for rho).

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    from styleforge import plots

    columns = min(len(report.values), 5)
    rows = -(-len(report.values) // columns)
    title = {
        "rho": "rho of PIN by layer: 0 is instance norm, 1 pixel norm",
        "demodulation": "Demodulation coefficients by layer",
    }[report.quantity]
    with plots.figure(path, rows, columns, size=(2.4 * columns, 1.9 * rows + 0.4), title=title) as axes:
        for ax, (name, values) in zip(axes, report.values.items(), strict=False):
            flat = values.flatten().numpy()
            limits = (0.0, 1.0) if report.quantity == "rho" else (min(0.0, float(flat.min())), float(flat.max()))
            ax.hist(flat, bins=20, range=limits)
            ax.set_title(f"{name}: mean {flat.mean():.2g}")
            ax.set_yticks([])
        for ax in axes[len(report.values) :]:
            ax.set_axis_off()
