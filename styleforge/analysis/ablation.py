"""Unit ablation: which feature maps make a region of a picture, and what the picture is without them.

Tan et al., Figures 5 to 10, after the GAN dissection of Bau et al.: units are the feature maps of a layer, and one that
is switched off is zero everywhere.
"""
# Shapes: N batch, C channels (units), L number of ws, W length of w, H W image size, h w size of a layer's features.

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.analysis.activations import alter, find_layer, record
from styleforge.analysis.droplets import Droplets, detect
from styleforge.networks import Generator
from styleforge.networks.layers import FullyConnected
from styleforge.networks.style_layers import AdaINEpilogue, AdaINLayer

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of the picture; right and bottom are just outside."""


@torch.no_grad()
def ablate(
    G: Generator,
    ws: Tensor,
    layer: str,
    units: Sequence[int],
    *,
    keep: bool = False,
    noise_mode: str = "const",
    lod: float = 0.0,
) -> Tensor:
    """Makes pictures without some units.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W], made at once.
        layer: Name of a style layer such as ``b8.conv1``; see `activations.layer_names`.
        units: Numbers of the layer's feature maps, from 0, that are zero.
        keep: Switch off all but these instead.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network; 0 is full resolution.

    Returns:
        img [N, C, H, W], about in [-1, 1].

    Raises:
        ValueError: No such layer or unit, or an argument that this network cannot take.
    """
    with switched_off(G, layer, [units], keep=keep):
        img: Tensor = G.synthesis(ws.to(G.w_avg.device), noise_mode=noise_mode, lod=lod)
    return img


@contextmanager
def switched_off(G: Generator, layer: str, units: Sequence[Sequence[int]], *, keep: bool = False) -> Iterator[None]:
    """Switches units of a layer off while the block runs.

    Args:
        G: The generator.
        layer: Its name.
        units: Of each picture of a batch; one list for all pictures.
        keep: Switch off all but these instead.

    Raises:
        ValueError: No such layer, or, when pictures are made, no such unit.
    """

    def change(x: Tensor) -> Tensor:
        chosen = torch.zeros(len(units), x.shape[1], dtype=torch.bool)
        for row, numbers in zip(chosen, units, strict=True):
            for number in numbers:
                if not 0 <= number < len(row):
                    raise ValueError(
                        f"units: got {number} for {layer}, expected numbers from 0 to {len(row) - 1} (--units)"
                    )
                row[number] = True
        on = (chosen if keep else ~chosen).to(x)
        return x * on[:, :, None, None]  # keeps the layout of x, and so the rounding of what follows

    with alter(G, layer, change):
        yield


def parse_box(text: str) -> Box:
    """Reads a box such as ``20,20,44,34``.

    Raises:
        ValueError: Anything else.
    """
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*){3}", text):
        raise ValueError(f"box: got {text!r}, expected left,top,right,bottom in pixels, such as 20,20,44,34 (--box)")
    left, top, right, bottom = map(int, text.split(","))
    return left, top, right, bottom


def box_mask(G: Generator, box: Box) -> Tensor:
    """A region [1, H, W] of the pictures that is true inside a box.

    Raises:
        ValueError: A box that is empty or leaves the picture.
    """
    left, top, right, bottom = box
    height, width = G.config.size
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"box: got {','.join(map(str, box))}, expected left,top,right,bottom in pixels with "
            f"0 <= left < right <= {width} and 0 <= top < bottom <= {height} (--box)"
        )
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, top:bottom, left:right] = True
    return mask


@torch.no_grad()
def rank_units(
    G: Generator,
    ws: Tensor,
    layer: str,
    regions: Tensor,
    *,
    noise_mode: str = "const",
    lod: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Ranks the units of a layer by their activation in a region of the picture.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W], made at once.
        layer: Name of a style layer.
        regions: [N or 1, H, W] bool, such as `Droplets.masks` or `box_mask`'s.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network.

    Returns:
        (units [N, C], the strongest first; activations [N, C], in order of the units' numbers: the mean of |x| over
        the region, in which a pixel of the layer counts by how much of it the region covers), on the CPU.

    Raises:
        ValueError: No such layer, or an empty region.
    """
    if not regions.flatten(1).any(1).all():
        raise ValueError(
            "regions: got a picture without any, such as one without a droplet; expected a box in pixels (--box), or "
            "seeds of pictures with droplets, which `styleforge analyze droplets` lists (--seeds)"
        )
    with record(G, [layer]) as activations:
        G.synthesis(ws.to(G.w_avg.device), noise_mode=noise_mode, lod=lod)
    x = activations[layer].float().abs().cpu()  # [N, C, h, w]
    share = F.adaptive_avg_pool2d(regions[:, None].float(), (x.shape[2], x.shape[3]))  # [N or 1, 1, h, w]
    strength = (x * share).sum([2, 3]) / share.sum([2, 3])  # [N, C]
    return strength.argsort(dim=1, descending=True, stable=True), strength


@dataclass(kw_only=True, slots=True)
class Ablated:
    """Pictures without some units, and the droplets that are in them still."""

    units: list[list[int]]
    """Of each picture: the units."""
    keep: bool
    """Whether these units are all that is left, rather than what is missing."""
    droplets: Droplets
    """With the pictures."""


def ablate_and_detect(
    G: Generator,
    ws: Tensor,
    layer: str,
    units: Sequence[Sequence[int]],
    *,
    keep: bool = False,
    noise_mode: str = "const",
    lod: float = 0.0,
) -> Ablated:
    """Makes pictures without some units, which may differ between them, and looks for droplets in them.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W], made at once.
        layer: Name of a style layer.
        units: Of each picture.
        keep: Switch off all but these instead.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network.

    Raises:
        ValueError: No such layer or unit.
    """
    with switched_off(G, layer, units, keep=keep):
        droplets = detect(G, ws, noise_mode=noise_mode, lod=lod, batch=len(ws))
    return Ablated(units=[list(numbers) for numbers in units], keep=keep, droplets=droplets)


def ablate_in_turn(
    G: Generator,
    ws: Tensor,
    layer: str,
    steps: int,
    *,
    regions: Tensor | None = None,
    noise_mode: str = "const",
    lod: float = 0.0,
) -> list[Ablated]:
    """Switches off the unit that is strongest in each picture's region, then the next, and so on (Figures 6 and 9).

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W], made at once.
        layer: Name of a style layer.
        steps: How many units; fewer if the layer has fewer.
        regions: [N or 1, H, W] bool; None for each picture's droplet, wherever it has moved to, and where it was last
            once there is none.
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network.

    Returns:
        The pictures as they are, without one unit, without two, and so on.

    Raises:
        ValueError: No such layer, or a picture without a region.
    """
    results = [ablate_and_detect(G, ws, layer, [[] for _ in ws], noise_mode=noise_mode, lod=lod)]
    region = results[0].droplets.masks if regions is None else regions
    for _ in range(steps):
        off = results[-1].units
        with switched_off(G, layer, off):
            ranked, _ = rank_units(G, ws, layer, region, noise_mode=noise_mode, lod=lod)
        if len(off[0]) == ranked.shape[1]:
            break
        more = [
            [*numbers, next(unit for unit in row if unit not in numbers)]
            for numbers, row in zip(off, ranked.tolist(), strict=True)
        ]
        results.append(ablate_and_detect(G, ws, layer, more, noise_mode=noise_mode, lod=lod))
        if regions is None:
            masks = results[-1].droplets.masks
            region = torch.where(masks.flatten(1).any(1)[:, None, None], masks, region)
    return results


def redraw_noise(G: Generator, w: Tensor, num: int, *, lod: float = 0.0, batch: int | None = None) -> Droplets:
    """Makes one picture with several draws of the noise, w fixed, and looks for droplets (Figure 5).

    Args:
        G: The generator; work is done on its device.
        w: [L, W]: the ws of one picture.
        num: How many; the noise follows from the seeds 0 to num - 1.
        lod: Level of detail of a progressive network.
        batch: Pictures at a time.

    Raises:
        ValueError: A network without noise.
    """
    if not G.synthesis.noise_inputs(lod):
        raise ValueError("network: got one without noise, expected one trained with use_noise, as all presets are")
    return detect(G, w[None].expand(num, -1, -1), noise_mode="random", lod=lod, batch=batch)


def style_biases(G: Generator, layer: str) -> tuple[Tensor, Tensor]:
    """What each unit's style is where w is zero: b_sigma and b_mu of AdaIN (Figure 8).

    AdaIN is sigma_y · norm(x) + mu_y, and the style an affine of w: sigma_y = v_sigma · w + b_sigma, and the same for
    mu_y.

    Args:
        G: The generator.
        layer: Name of a style layer.

    Returns:
        (|b_sigma| [C], |b_mu| [C]) on the CPU.

    Raises:
        ValueError: No such layer, or a network whose styles do not follow a normalization.
    """
    affine = _affine(G, layer)
    if affine is None or affine.bias is None:
        raise ValueError(
            f"layer: got {layer!r} of a network with the style block {G.config.style_block!r}, expected a style layer "
            "of one with 'instance', 'pixel' or 'pixel_instance' and styles, such as config-a"
        )
    scale, shift = (affine.bias.detach().cpu() * affine.bias_gain).chunk(2)
    return (scale + 1).abs(), shift.abs()  # the layer multiplies by scale + 1


def has_style_biases(G: Generator, layer: str) -> bool:
    """Whether `style_biases` has something to show."""
    return _affine(G, layer) is not None


def _affine(G: Generator, layer: str) -> FullyConnected | None:
    """The affine that makes a layer's scale and shift after normalization, where there is one."""
    part = find_layer(G, layer)
    epilogue = part.epilogue if isinstance(part, AdaINLayer) else part
    return epilogue.norm.affine if isinstance(epilogue, AdaINEpilogue) else None
