"""Droplet detector: where the activations peak in most channels at once (Karras et al. 2020, Figure 1; Tan et al.).

Instance norm lets a generator hide the strength of its signals behind one spot that is brighter than everything else
in every feature map: a droplet, or circular artifact. At a pixel, each channel's distance from its median is taken in
units of what 95 % of its pixels stay below, and the median over the channels is the pixel's peak: half of the channels
at least stand out so far, at once. Objects make single channels peak, at different places; droplets make most.
"""
# Shapes: N batch, K layers, C channels, H W image size, h w size of a layer's features.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.analysis.activations import layer_names, record
from styleforge.latents import synthesize
from styleforge.networks import Generator

THRESHOLD = 3.0
"""Peak from which on a spot counts as a droplet. Clean networks stay below; instance norm's droplets are at 10 and
more, see docs/artifacts.md."""
SPOT_SHARE = 0.05
"""Share of a map that a spot may cover; what is larger is an object, and counts as usual."""
SPOT_PIXELS = 25
"""Pixels that it may cover where that share is less, but no more than a tenth of the map."""
SMALLEST = 16
"""Sides below this have too few pixels to tell a spot from an object, and do not count for a picture's score."""
LIMIT = 1000.0
"""Largest peak: of spots on features that are constant everywhere else."""


@dataclass(kw_only=True, slots=True)
class Droplets:
    """Droplets of some pictures."""

    score: Tensor
    """[N]: the highest peak in a layer that counts; `THRESHOLD` and more is a droplet."""
    masks: Tensor
    """[N, H, W] bool, at the picture's size: where the strongest layer peaks, above the threshold and above half of
    its highest; nowhere in a picture without a droplet."""
    layers: list[str]
    """The K style layers, from the base grid to the image."""
    layer_scores: Tensor
    """[N, K]: the highest peak in each layer, those too small to count, too."""
    places: Tensor
    """[N, K, 2] int: (x, y) of that peak, in pixels of the layer."""
    strongest: list[str]
    """The layer of each picture's score."""
    centres: Tensor
    """[N, 2]: (x, y) of its peak in pixels of the picture."""
    images_uint8: Tensor
    """[N, C, H, W]: the pictures."""

    @property
    def found(self) -> Tensor:
        """[N] bool: which pictures have a droplet."""
        return self.score >= THRESHOLD

    @property
    def rate(self) -> float:
        """The share of pictures with a droplet."""
        return float(self.found.double().mean())


def peak_map(x: Tensor) -> Tensor:
    """How far the channels stand out at each pixel, all at once.

    Args:
        x: Features [N, C, h, w] of a layer.

    Returns:
        [N, h, w], 0 to `LIMIT`: the median over channels of |x - median of the channel|, in units of what
        95 % of the channel's pixels stay below, or all but a spot of `SPOT_PIXELS` on a small map.
    """
    N, C, h, w = x.shape
    pixels = x.detach().float().reshape(N, C, h * w)
    away = (pixels - pixels.median(2, keepdim=True).values).abs()
    spot = max(int(SPOT_SHARE * h * w), min(SPOT_PIXELS, h * w // 10))
    usual = away.kthvalue(h * w - spot, dim=2, keepdim=True).values  # [N, C, 1]
    usual = usual.maximum(away.amax(2, keepdim=True) / LIMIT).clamp(min=torch.finfo(torch.float32).tiny)
    return (away / usual).median(1).values.reshape(N, h, w)


def highest_peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The highest value of each map [N, h, w], and its place.

    Returns:
        (values [N], places [N, 2] as (x, y) in pixels).
    """
    score, index = maps.flatten(1).max(1)
    return score, torch.stack([index % maps.shape[2], index // maps.shape[2]], dim=1)


def counting_layers(G: Generator, lod: float = 0.0) -> list[str]:
    """The style layers that are large enough for a picture's score; those of the last block in any case."""
    blocks = G.synthesis.active_blocks(lod)
    small = sum(len(block.style_layers) for block in blocks[:-1] if min(block.size) < SMALLEST)
    return layer_names(G, lod)[small:]


@torch.no_grad()
def detect(
    G: Generator,
    ws: Tensor,
    *,
    noise_mode: str = "const",
    noise_seeds: Sequence[int] | None = None,
    lod: float = 0.0,
    batch: int | None = None,
) -> Droplets:
    """Looks for droplets in pictures, by the features they are made from.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W].
        noise_mode: ``const``, ``none``, or ``random``, which draws each sample's noise from its seed.
        noise_seeds: The samples' seeds for ``random``; by default they are counted from 0.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time; None for what memory suggests.

    Returns:
        All of it on the CPU.

    Raises:
        ValueError: No ws, or an argument that this network cannot take.
        MemoryError: Memory ran out.
    """
    if not len(ws):
        raise ValueError("ws: got none, expected at least one picture's to look for droplets in")
    layers, first = layer_names(G, lod), len(layer_names(G, lod)) - len(counting_layers(G, lod))
    scores, places, masks, pictures = [], [], [], []
    with record(G) as activations:
        for images_uint8 in synthesize(G, ws, noise_mode=noise_mode, noise_seeds=noise_seeds, lod=lod, batch=batch):
            maps = [peak_map(x).cpu() for x in activations.values()]
            peaks = [highest_peaks(layer_maps) for layer_maps in maps]
            scores.append(torch.stack([score for score, _ in peaks], dim=1))  # [n, K]
            places.append(torch.stack([place for _, place in peaks], dim=1))  # [n, K, 2]
            masks.append(_masks(maps[first:], G.config.size))
            pictures.append(images_uint8)
    layer_scores, all_places = torch.cat(scores), torch.cat(places)
    score, strongest = layer_scores[:, first:].max(1)
    strongest += first
    height, width = G.config.size
    scales = torch.tensor([[width / layer.shape[2], height / layer.shape[1]] for layer in maps])  # [K, 2]
    return Droplets(
        score=score,
        masks=torch.cat(masks),
        layers=layers,
        layer_scores=layer_scores,
        places=all_places,
        strongest=[layers[k] for k in strongest.tolist()],
        centres=(all_places[torch.arange(len(ws)), strongest] + 0.5) * scales[strongest],
        images_uint8=torch.cat(pictures),
    )


def _masks(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """[N, H, W] bool: where the strongest of some layers' maps [N, h, w] peaks; nowhere below the threshold."""
    strongest = torch.stack([layer_maps.flatten(1).amax(1) for layer_maps in maps]).argmax(0)  # [N]
    masks = []
    for i, k in enumerate(strongest.tolist()):
        peaks = maps[k][i]
        mask = peaks >= max(THRESHOLD, float(peaks.max()) / 2)
        masks.append(F.interpolate(mask[None, None].float(), size, mode="nearest")[0, 0] > 0)
    return torch.stack(masks)
