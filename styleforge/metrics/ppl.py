"""Perceptual path length (Karras et al. 2019, Section 4.1; per image: Karras et al. 2020, Section 3).

How much a picture changes, as people see it, per step through the latent space: E[d(g(w(t)), g(w(t + ε))) / ε²].

The division by ε² is the field's definition, and with ε = 1e-4 it has a price: two pictures that differ by 1e-4 of
their contrast are compared in float32, which leaves two or three digits of a single distance, and about four of a mean,
since errors are independent. A network in float64 (`G.double()`) is free of them, and several times slower. In float32
a distance is the same to the last digit only if as many pictures are made at a time; so batches are always full.
"""
# Shapes: N samples, D directions, Z length of z, C length of a label or image channels, L number of ws, W length of w,
# H W image size.

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styleforge.latents import default_batch
from styleforge.metrics import draws
from styleforge.networks import Generator
from styleforge.ops.shapes import assert_shape, require_shape
from styleforge.precision import exact_float32

Distance = Callable[[Tensor, Tensor], Tensor]
"""Images and images, each [N, C, H, W] in [-1, 1], to how different they look [N], such as LPIPS."""

VIEW_SIZE = 256
"""Larger pictures are looked at in about this size, which VGG was made for."""


@torch.no_grad()
@exact_float32()
def path_length_distances(
    G: Generator,
    distance: Distance,
    *,
    space: str = "w",
    sampling: str = "end",
    num_samples: int,
    epsilon: float = 1e-4,
    seed: int = 0,
    crop: bool = False,
    c: Tensor | None = None,
    batch: int | None = None,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """The distances d / ε² of random steps, each on a path between two random latents; see `path_length`.

    Both pictures of a step have the same noise: the network's fixed maps, which the official release draws anew for
    each batch.

    Args:
        G: The generator; work is done on its device and in its float type.
        distance: How different two pictures look; it gets them cropped, and downsampled to about 256².
        space: ``w``: straight paths between ws; ``z``: arcs between the directions of two z.
        sampling: ``end``: steps from the start of each path; ``full``: from anywhere on it.
        num_samples: How many steps there are.
        epsilon: Length of a step, as a share of its path.
        seed: Chooses latents and places.
        crop: Look only at rows 3/8 to 7/8 and columns 2/8 to 6/8: where faces are in FFHQ. What is left is brought to
            about 256², as in the release of StyleGAN2; ADA's brings the whole picture there before.
        c: One label [C] for all, or one for each step that is measured [N, C]; None for an unconditional network.
        batch: Pairs of pictures at a time; None for a number by their size. It changes distances by rounding, which is
            all that does: neither order nor company matters to a step.
        indices: Which of the ``num_samples`` steps to measure, so that the work can be shared; None for all.

    Returns:
        [N] float64 on the CPU: one for each step measured, untrimmed, in the order of ``indices``.

    Raises:
        ValueError: An argument that does not do, or a distance that is not finite.
    """
    if space not in ("z", "w") or sampling not in ("end", "full"):
        raise ValueError(
            f"path length: got space {space!r} and sampling {sampling!r}, expected space z or w, and sampling end or "
            "full; ppl2_wend is space w, sampling end"
        )
    _require_positive(epsilon=epsilon, num_samples=num_samples)
    numbers = range(num_samples) if indices is None else indices
    if not all(0 <= number < num_samples for number in numbers):
        raise ValueError(
            f"indices: got {min(numbers)} to {max(numbers)}, expected numbers from 0 to {num_samples - 1}; raise "
            "num_samples or leave them out"
        )
    like, batch = _like(G), batch or _default_pairs(G)
    labels = _labels(c, len(numbers), like)
    parts = [torch.empty(0, dtype=torch.float64)]
    order = [*range(len(numbers)), *[0] * (-len(numbers) % batch)]  # full batches: a smaller one rounds differently
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        part = [numbers[row] for row in rows]
        part_labels = None if labels is None else labels[rows]
        # Steps are taken in float64, which rounds t + ε properly.
        start, end = draws.draw_z(seed, part, 2 * G.z_dim, stream=draws.PATHS).double().chunk(2, dim=1)  # [n, Z]
        t = torch.zeros(len(part), dtype=torch.float64)
        if sampling == "full":
            t = draws.draw_uniform(seed, part, stream=draws.PATH_TIMES)
        if space == "w":
            ws_start, ws_end = (_map(G, z, part_labels, like) for z in (start, end))
            steps = [torch.lerp(ws_start, ws_end, moment[:, None, None]) for moment in (t, t + epsilon)]
        else:
            steps = [_map(G, slerp(start, end, moment[:, None]), part_labels, like) for moment in (t, t + epsilon)]
        img, img_next = _view(G, torch.cat(steps).to(like), crop).chunk(2)  # [n, C, h, w]
        parts.append(_per_step(distance(img, img_next), epsilon, part))
    return torch.cat(parts)[: len(numbers)]


@torch.no_grad()
@exact_float32()
def per_image_path_lengths(
    G: Generator,
    distance: Distance,
    ws: Tensor,
    *,
    num_directions: int = 16,
    epsilon: float = 1e-4,
    seed: int = 0,
    crop: bool = False,
    c: Tensor | None = None,
    batch: int | None = None,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """The path length of single pictures (Karras et al. 2020, Section 3, Figures 4 and 5).

    The paper samples "latent space around individual points in W" and says that the expectation over pictures is the
    path length of the model. That leaves one choice: the mean distance of steps from a picture's w towards the w of
    other random latents, of which the paper does not say how many it takes. It is not trimmed. The mean over pictures
    estimates that of ``path_length_distances(space="w", sampling="end")``.

    Args:
        G: The generator; work is done on its device and in its float type.
        distance: How different two pictures look; it gets them cropped, and downsampled to about 256².
        ws: The pictures [N, L, W], not truncated.
        num_directions: Steps from each picture.
        epsilon: Length of a step, as a share of the way to the other w.
        seed: Chooses the directions.
        crop: Look only at rows 3/8 to 7/8 and columns 2/8 to 6/8: where faces are in FFHQ.
        c: One label [C] for all, or each picture's [N, C], which its directions share; None for an unconditional
            network.
        batch: Pairs of pictures at a time; None for a number by their size. It changes lengths by rounding.
        indices: The pictures' numbers, from which directions follow; by default they are counted from 0.

    Returns:
        [N] float64 on the CPU.

    Raises:
        ValueError: An argument that does not do, or a distance that is not finite.
    """
    _require_positive(epsilon=epsilon, num_directions=num_directions)
    numbers = range(len(ws)) if indices is None else indices
    if len(numbers) != len(ws):
        raise ValueError(f"indices: got {len(numbers)} for {len(ws)} pictures, expected one for each; leave them out")
    like, batch = _like(G), batch or _default_pairs(G)
    labels = _labels(c, len(ws), like)
    lengths = torch.empty(len(ws), dtype=torch.float64)
    for i, number in enumerate(numbers):
        z = draws.draw_z(seed, [number], num_directions * G.z_dim, stream=draws.DIRECTIONS).reshape(num_directions, -1)
        ends = _map(G, z, None if labels is None else labels[i].expand(num_directions, -1), like)  # [D, L, W]
        start = ws[i : i + 1].cpu().double()  # [1, L, W]
        parts = []
        for steps in start.lerp(ends, epsilon).split(2 * batch):
            img = _view(G, torch.cat([start, steps]).to(like), crop)  # in one batch, since batches round differently
            parts.append(_per_step(distance(img[:1].expand_as(img[1:]), img[1:]), epsilon, [number] * len(steps)))
        lengths[i] = torch.cat(parts).mean()
    return lengths


def trimmed_mean(distances: Tensor, *, lower: float = 1.0, upper: float = 99.0) -> float:
    """The mean without what lies below one percentile or above another.

    Percentiles are values that occur: the next smaller one for the lower, the next larger one for the upper. So nothing
    is dropped of 100 values or fewer.

    Args:
        distances: [N].
        lower: Percentile, 0 to 100.
        upper: Percentile, 0 to 100.

    Raises:
        ValueError: There is no value, or one that is not finite.
    """
    values = distances.detach().cpu().double().numpy()
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"path length: got {len(values)} distances, {np.isfinite(values).sum()} of them finite, expected one or "
            "more, all finite; measure again"
        )
    low = np.percentile(values, lower, method="lower")
    high = np.percentile(values, upper, method="higher")
    return float(values[(low <= values) & (values <= high)].mean())


def path_length(distances: Tensor) -> float:
    """The perceptual path length from what `path_length_distances` gives: the mean from the 1st to the 99th percentile.

    Raises:
        ValueError: There is no distance, or one that is not finite.
    """
    return trimmed_mean(distances)


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The direction at t on the arc between the directions of a and b [N, Z], t [N, 1]: [N, Z] of length 1."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    cosine = (a * b).sum(1, keepdim=True).clamp(-1, 1)
    across = F.normalize(b - cosine * a, dim=1)
    angle = t * cosine.acos()
    return F.normalize(a * angle.cos() + across * angle.sin(), dim=1)


def _map(G: Generator, z: Tensor, c: Tensor | None, like: Tensor) -> Tensor:
    """The ws [N, L, W] of z, in float64 on the CPU."""
    ws: Tensor = G.mapping(z.to(like), c)
    return ws.cpu().double()


def _labels(c: Tensor | None, num: int, like: Tensor) -> Tensor | None:
    """One label for each of ``num`` samples, on the generator's device."""
    if c is None:
        return None
    c = c.expand(num, -1) if c.ndim == 1 else c
    require_shape("c", c, [num, None], "hand in one label for all, or one for each sample that is measured")
    return c.to(like.device)


def _view(G: Generator, ws: Tensor, crop: bool) -> Tensor:
    """The pictures of ws as they are compared: [N, C, h, w]."""
    img: Tensor = G.synthesis(ws, noise_mode="const")  # [N, C, H, W]
    if crop:
        H, W = img.shape[2:]
        if H != W or H < 8:
            raise ValueError(
                f"crop: got pictures {W} wide and {H} high, expected squares from 8 on, where a face would be; measure "
                "without crop, as in ppl2_wend"
            )
        unit = H // 8
        img = img[:, :, 3 * unit : 7 * unit, 2 * unit : 6 * unit]
    H, W = img.shape[2:]
    largest = max(H, W) // VIEW_SIZE
    factor = max((i for i in range(1, largest + 1) if H % i == 0 and W % i == 0), default=1)
    return F.avg_pool2d(img, factor) if factor > 1 else img


def _per_step(distances: Tensor, epsilon: float, numbers: Sequence[int]) -> Tensor:
    """Distances over ε² [N], in float64 on the CPU."""
    assert_shape(distances, [len(numbers)])
    distances = distances.cpu().double() / epsilon**2
    finite = distances.isfinite().tolist()
    if not all(finite):
        raise ValueError(
            f"path length: got a distance that is not finite at sample {numbers[finite.index(False)]}, expected "
            "numbers; the network's pictures or the extractor's features are not finite there"
        )
    return distances


def _like(G: Generator) -> Tensor:
    """A tensor on the generator's device and in its float type; `G` may be any object with mapping and synthesis."""
    tensors = itertools.chain(G.parameters(), G.buffers()) if isinstance(G, nn.Module) else iter(())
    return next((x for x in tensors if x.is_floating_point()), torch.empty(0))


def _default_pairs(G: Generator) -> int:
    return max(default_batch(G) // 2, 1) if isinstance(G, Generator) else 8


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: got {value}, expected a number above 0; leave it out for the usual one")
