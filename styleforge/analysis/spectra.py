"""Power spectra of pictures and of what the layers put out (Karras et al. 2020, Appendix A and Figure 16)."""
# Shapes: N batch, C channels, h w size, K frequencies, L number of ws, W length of w.

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styleforge import images, plots
from styleforge.analysis.activations import layer_names, record
from styleforge.files import write_json
from styleforge.latents import synthesize
from styleforge.networks import Generator
from styleforge.networks.sizes import block_name

MIN_SIDE = 8
"""Smaller features have too few frequencies for a spectrum."""
HIGH = 0.25
"""Frequencies count as high from here on, in cycles per pixel: half of the highest that a row of pixels can hold."""


class Spectrum:
    """Mean power by frequency, of pictures or features that come in batches.

    Each channel is freed of its mean, faded out towards the borders (Hann's window, so that the borders' jump makes no
    frequencies of its own), and transformed; power is averaged over channels, samples and directions.

    Args:
        size: (height, width), each at least `MIN_SIDE`.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        assert min(size) >= MIN_SIDE, size
        self.size = size
        self.count = 0
        self._power = torch.zeros(*size, dtype=torch.float64)  # [h, w]

    def add(self, x: Tensor) -> None:
        """Takes features [N, C, h, w] in."""
        x = x.detach().cpu().double()
        window, _, _ = _plan(self.size)
        x = (x - x.mean([2, 3], keepdim=True)) * window
        self._power += torch.fft.fft2(x).abs().square().mean(1).sum(0)
        self.count += len(x)

    @property
    def power(self) -> Tensor:
        """[h, w] float64: mean power of each frequency, the constant part at [0, 0]; sums to the mean variance."""
        window, _, _ = _plan(self.size)
        return self._power / (self.count * window.square().sum() * window.numel())

    @property
    def frequencies(self) -> Tensor:
        """[K]: middles of the rings, in cycles per pixel, from the lowest above 0 to 0.5."""
        count = min(self.size) // 2
        return torch.arange(1, count + 1, dtype=torch.float64) / (2 * count)

    @property
    def radial(self) -> Tensor:
        """[K] float64: mean power on rings around frequency 0, one ring for each of `frequencies`."""
        _, _, rings = _plan(self.size)
        count = len(self.frequencies)
        sums = torch.zeros(count + 2, dtype=torch.float64).index_add_(0, rings.flatten(), self.power.flatten())
        numbers = rings.flatten().bincount(minlength=count + 2)
        return (sums / numbers.clamp(min=1))[1 : count + 1]

    @property
    def high_share(self) -> float:
        """Share of the variance at frequencies of `HIGH` and more, in any direction."""
        _, frequency, _ = _plan(self.size)
        return float(self.power[frequency >= HIGH].sum() / self.power.sum().clamp(min=1e-300))


@functools.lru_cache(maxsize=32)
def _plan(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Window, frequency and number of the ring, [h, w] each; ring 0 is the constant part, the last one the corners."""
    height, width = size
    windows = [torch.hann_window(side + 2, periodic=False, dtype=torch.float64)[1:-1] for side in size]
    fy, fx = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.fftfreq(width, dtype=torch.float64)
    frequency = (fy[:, None].square() + fx.square()).sqrt()
    count = min(size) // 2
    rings = (frequency * 2 * count).round().long().clamp(max=count + 1)
    return windows[0][:, None] * windows[1], frequency, rings


@dataclass(kw_only=True, slots=True)
class SpectraReport:
    """Spectra of a generator's pictures and layers, and of real pictures."""

    generated: Spectrum
    """Of its pictures."""
    real: Spectrum | None
    """Of real ones."""
    layers: dict[str, Spectrum]
    """By the layer's name, from the base grid to the image; those of at least `MIN_SIDE` pixels."""

    @property
    def gap(self) -> tuple[float, float] | None:
        """Generated over real power in decibel, mean and largest magnitude over frequencies; None without real ones."""
        if self.real is None:
            return None
        decibel = 10 * (self.generated.radial.clamp(min=1e-12) / self.real.radial.clamp(min=1e-12)).log10()
        return float(decibel.mean()), float(decibel.abs().max())

    def numbers(self) -> dict[str, Any]:
        """All numbers, as JSON can hold them."""
        values: dict[str, Any] = {"generated": _numbers(self.generated)}
        if self.real is not None and self.gap is not None:
            values["real"] = _numbers(self.real)
            values["gap_db"] = {"mean": self.gap[0], "largest": self.gap[1]}
        return values | {"layers": {name: _numbers(spectrum) for name, spectrum in self.layers.items()}}

    def summary(self) -> str:
        """The report in one sentence."""
        text = f"{self.generated.high_share:.2%} of the generated pictures' variance is at high frequencies"
        if self.real is not None and self.gap is not None:
            text += f", {self.real.high_share:.2%} of the real ones' ({self.gap[0]:+.1f} dB on average)"
        share, name = max((spectrum.high_share, name) for name, spectrum in self.layers.items())
        return f"{text}; of the layers {name} has most there, {share:.0%}."

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``spectra.json`` and ``spectra.png`` to a folder, made if missing, with the settings.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        table, picture = Path(folder) / "spectra.json", Path(folder) / "spectra.png"
        write_json(table, {"summary": self.summary(), "settings": dict(settings or {}), **self.numbers()})
        plot_spectra(self, picture)
        return [table, picture]


def spectra_report(
    G: Generator,
    ws: Tensor,
    *,
    real: Iterable[Tensor] | None = None,
    noise_mode: str = "const",
    lod: float = 0.0,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SpectraReport:
    """Measures spectra of pictures and layers.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W].
        real: images_uint8 [n, C, H, W] each, of the generator's size.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time.
        progress: Called with the number of pictures done and the total.

    Raises:
        ValueError: A network whose pictures are smaller than `MIN_SIDE`.
    """
    if min(G.config.size) < MIN_SIDE:
        height, width = G.config.size
        raise ValueError(
            f"network: got one of {height}×{width} pictures, expected at least {MIN_SIDE} pixels on each side, for a "
            "spectrum; take a larger one"
        )
    blocks = {block_name(block.size): block.size for block in G.synthesis.blocks}
    sizes = {name: blocks[name.partition(".")[0]] for name in layer_names(G, lod)}
    layers = {name: Spectrum(size) for name, size in sizes.items() if min(size) >= MIN_SIDE}
    generated, done = Spectrum(G.config.size), 0
    with record(G, layers) as activations:
        for images_uint8 in synthesize(G, ws, noise_mode=noise_mode, lod=lod, batch=batch):
            generated.add(images.from_uint8(images_uint8))
            for name, spectrum in layers.items():
                spectrum.add(activations[name])
            done += len(images_uint8)
            if progress is not None:
                progress(done, len(ws))
    of_real = None
    for images_uint8 in real or ():
        of_real = of_real or Spectrum(G.config.size)
        of_real.add(images.from_uint8(images_uint8))
    return SpectraReport(generated=generated, real=of_real, layers=layers)


def plot_spectra(report: SpectraReport, path: str | Path) -> None:
    """Draws the pictures' spectra, the layers', and the layers' shares of high frequencies.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    with plots.figure(path, 1, 3, size=(12.5, 3.6)) as (left, middle, right):
        if report.real is not None:
            left.plot(report.real.frequencies, _decibel(report.real.radial), label="real", color=plots.COLOURS[-1])
        left.plot(report.generated.frequencies, _decibel(report.generated.radial), label="generated")
        left.set(title="pictures", xlabel="cycles per pixel", ylabel="power, dB")
        left.legend()
        shades = [plots.COLOURS[i % len(plots.COLOURS)] for i in range(len(report.layers))]
        for (name, spectrum), colour in zip(report.layers.items(), shades, strict=True):
            scaled = spectrum.radial / spectrum.power.sum().clamp(min=1e-300) * spectrum.power.numel()
            middle.plot(spectrum.frequencies, _decibel(scaled), label=name, color=colour, linewidth=1.2)
        middle.axhline(0, color="black", linewidth=0.6, linestyle=":")
        middle.set(title="layers, as scaled to unit variance", xlabel="cycles per pixel", ylabel="dB above white noise")
        right.barh(list(report.layers), [100 * s.high_share for s in report.layers.values()], color=shades)
        right.invert_yaxis()
        right.set(title=f"variance at {HIGH} cycles per pixel and more", xlabel="%")


def _decibel(power: Tensor) -> Tensor:
    return 10 * power.clamp(min=1e-12).log10()


def _numbers(spectrum: Spectrum) -> dict[str, Any]:
    return {
        "variance": float(spectrum.power.sum()),
        "high_share": spectrum.high_share,
        "frequencies": spectrum.frequencies.tolist(),
        "power": spectrum.radial.tolist(),
    }
