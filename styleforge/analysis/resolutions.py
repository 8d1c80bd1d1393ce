"""How much each resolution adds to the picture (Karras et al. 2020, Section 4.1 and Figure 8)."""
# Shapes: N batch, L number of ws, W length of w, C image channels, h w size of a block.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styleforge import images, plots
from styleforge.analysis.activations import record
from styleforge.files import write_json
from styleforge.latents import generate_ws, synthesize
from styleforge.networks import Generator
from styleforge.networks.sizes import block_name
from styleforge.ops import upsample2d


def require_skips(G: Generator) -> None:
    """Checks that a generator sums RGB over resolutions.

    Raises:
        ValueError: It has a single RGB output.
    """
    if G.config.architecture != "skip":
        raise ValueError(
            f"network: got a generator of architecture {G.config.architecture!r}, whose picture comes from one tRGB, "
            "expected 'skip', which sums one of each resolution; configs E and F and the preset auto have it"
        )


def resolution_names(G: Generator) -> list[int]:
    """The longer side of each block, which names its resolution."""
    return [max(size) for size in G.config.plan.sizes]


def rgb_layers(G: Generator) -> list[str]:
    """Names of the tRGB layers, from the lowest resolution up; errors as in `require_skips`."""
    require_skips(G)
    return [f"{block_name(size)}.torgb" for size in G.config.plan.sizes]


def contributions(
    G: Generator,
    num_samples: int = 1024,
    *,
    ws: Tensor | None = None,
    noise_mode: str = "const",
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, float]:
    """Share of each resolution in the picture: the standard deviation of its tRGB's pixels, over the sum of all.

    A channel's deviations are those from its mean over all pictures and places, so that a bias, which is a matter of
    taste between resolutions, does not count; channels are put together as the root of their mean variance.

    Args:
        G: A generator with output skips.
        num_samples: Random w, those of the seeds 0 to num_samples - 1.
        ws: [N, L, W] in their place; a conditional network needs them.
        noise_mode: ``const``, ``none`` or ``random``.
        batch: Pictures at a time.
        progress: Called with the number of pictures done and the total.

    Returns:
        Longer side of the resolution -> share, from the lowest resolution up. They sum to 1.

    Raises:
        ValueError: A network without output skips, or one whose outputs are all constant.
    """
    layers = rgb_layers(G)
    if ws is None:
        ws = generate_ws(G, range(num_samples))
    names = resolution_names(G)
    sums = torch.zeros(2, len(names), G.img_channels, dtype=torch.float64)  # of values, and of their squares
    counts = torch.zeros(len(names), 1, dtype=torch.float64)

    done = 0
    with record(G, layers) as rgb:
        for images_uint8 in synthesize(G, ws, noise_mode=noise_mode, batch=batch):
            for number, layer in enumerate(layers):
                x = rgb[layer].cpu().double()  # [n, C, h, w]
                sums[0, number] += x.sum([0, 2, 3])
                sums[1, number] += x.square().sum([0, 2, 3])
                counts[number] += x.numel() // x.shape[1]
            done += len(images_uint8)
            if progress is not None:
                progress(done, len(ws))
    variances = sums[1] / counts - (sums[0] / counts).square()  # [B, C]
    stds = variances.clamp(min=0).mean(1).sqrt()
    if not stds.sum() > 0:
        raise ValueError(
            "network: got tRGB outputs that are all constant or not finite, expected pictures; take another snapshot"
        )
    return dict(zip(names, (stds / stds.sum()).tolist(), strict=True))


@torch.no_grad()
def separate(G: Generator, ws: Tensor, noise_mode: str = "const") -> tuple[Tensor, Tensor]:
    """Takes pictures apart into what each resolution adds.

    Args:
        G: A generator with output skips.
        ws: [N, L, W].
        noise_mode: ``const`` or ``none``.

    Returns:
        img [N, C, H, W], and the parts [B, N, C, H, W] at full size, enlarged as the network does it; they sum to img.

    Raises:
        ValueError: A network without output skips.
    """
    layers = rgb_layers(G)
    with record(G, layers) as rgb:
        img: Tensor = G.synthesis(ws.to(G.w_avg.device), noise_mode=noise_mode)
        parts = [rgb[layer].to(img.dtype) for layer in layers]
    for number, block in enumerate(G.synthesis.blocks[1:], start=1):
        assert block.f is not None
        for lower in range(number):
            parts[lower] = upsample2d(parts[lower], block.f)
    return img, torch.stack(parts)


@dataclass(kw_only=True, slots=True)
class ResolutionReport:
    """Shares of the resolutions, of one network or along a run."""

    points: list[tuple[float | None, dict[int, float]]]
    """(kimg, shares as from `contributions`), in order; kimg is None where it is not known."""
    sheet: Tensor
    """[C, H, W] uint8: pictures of the last network, each beside what its resolutions add."""

    def summary(self) -> str:
        """The last shares in one sentence."""
        shares = ", ".join(f"{side}: {share:.1%}" for side, share in self.points[-1][1].items())
        return f"Share of each resolution in the picture: {shares}."

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``resolutions.json``, the plot ``resolutions.png`` and the pictures ``resolutions-parts.png``.

        Args:
            folder: Where; made if it is missing.
            settings: What to keep beside the numbers.

        Returns:
            The files.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        table, plot, parts = (Path(folder) / f"resolutions{end}" for end in (".json", ".png", "-parts.png"))
        points = [{"kimg": kimg, "contributions": shares} for kimg, shares in self.points]
        write_json(table, {"summary": self.summary(), "settings": dict(settings or {}), "points": points})
        plot_contributions(self.points, plot)
        images.save(self.sheet, parts)
        return [table, plot, parts]


def parts_sheet(G: Generator, ws: Tensor, noise_mode: str = "const") -> Tensor:
    """A sheet with a row for each of ws [N, L, W]: the picture, then each resolution's part around middle gray.

    Returns:
        [C, H, W] uint8.
    """
    img, parts = separate(G, ws, noise_mode)
    centred = parts - parts.mean([3, 4], keepdim=True)  # [B, N, C, H, W]
    cells = torch.cat([img[None], centred]).transpose(0, 1)  # [N, 1 + B, C, H, W]
    return images.grid(images.to_uint8(cells.flatten(0, 1)).cpu(), cells.shape[1], padding=2)


def plot_contributions(points: Sequence[tuple[float | None, Mapping[int, float]]], path: str | Path) -> None:
    """Draws shares: bars for one network, areas over kimg for several (Figure 8).

    Args:
        points: As in `ResolutionReport`.
        path: Target file; its ending chooses the format.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    sides = list(points[-1][1])
    shares = [[100 * point[side] for _, point in points] for side in sides]
    with plots.figure(path, title="Share of each resolution in the picture") as (ax,):
        if len(points) == 1:
            bars = ax.bar([str(side) for side in sides], [share[0] for share in shares], color=plots.COLOURS[0])
            ax.bar_label(bars, fmt="%.1f", fontsize=8)
            ax.set(xlabel="resolution", ylabel="% of standard deviations")
            return
        kimg = [i if at is None else at for i, (at, _) in enumerate(points)]
        colours = [plots.COLOURS[i % len(plots.COLOURS)] for i in range(len(sides))]
        ax.stackplot(kimg, shares, labels=[str(side) for side in sides], colors=colours)
        ax.set(xlabel="kimg", ylabel="% of standard deviations", ylim=(0, 100), xlim=(kimg[0], kimg[-1]))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
