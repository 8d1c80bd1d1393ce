"""3×3 convolutions by `styleforge.ops.winograd`'s way: tiles are transformed, multiplied and transformed back.

A thread takes some tiles at a time, such that caches hold what it makes of them: 36 matrices [tiles, channels], each of
which meets one matrix [channels, channels] of the transformed kernel. No tile's result depends on others, nor on how
many threads there are.
"""
# Shapes: N batch, I/O/C channels, H W image size, h w result size, a b rows and columns of tiles, t side of a tile.
# Tiles are counted over columns, rows and images.

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from numba import prange
from torch import Tensor

from styleforge.ops.kernels.cpu.compiled import channels_last, compiled, part, pixels_first
from styleforge.ops.kernels.cpu.vectors import LANES, ROWS, add_transposed, copy, linear_map, multiply, round_up

SIDE, NUMBERS = 4, 6
"""Pixels of a result, and numbers, along a side of a tile."""
_POINTS = (0, 1, -1, Fraction(1, 2), -2)
"""Of all that were tried the ones with the smallest rounding errors; the sixth is infinity."""
_TILES = 96
"""So many tiles are multiplied at a time: more, and caches hold them no longer; fewer, and kernels are read often."""
_STRIP = 8
"""So many tiles that lie side by side are transformed at a time."""
_SUM_BYTES = 4 << 20
"""Of weight gradients so much of the transformed images is multiplied at a time, such that caches hold much of it, …"""
_SUM_KERNELS = 3
"""… or as much as so many transformed kernels take, which are read and written each time."""
_MOST_BYTES = 256 << 20
"""Transformed images take about as much memory as this at the most, but for the least that can be multiplied."""


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A [6, 4], B [6, 6] and G [6, 3]: 4 pixels of a row are Aᵀ(G·kernel ⊙ B·pixels); Lavin and Gray call B Bᵀ.

    A kernel and a result are coefficients of two polynomials. Their product, of which the convolution is the
    transpose, is known from its values at the points; Lagrange's polynomials make coefficients of these again.
    """
    points = [Fraction(p) for p in _POINTS]
    A, B, G = np.zeros((NUMBERS, SIDE)), np.zeros((NUMBERS, NUMBERS)), np.zeros((NUMBERS, 3))
    for i, point in enumerate([*points, None]):
        polynomial = np.array([Fraction(1)])  # that is 0 at all other points, from its highest coefficient
        for other in points:
            if other != point:
                polynomial = np.convolve(polynomial, [Fraction(1), -other])
        B[i, : len(polynomial)] = polynomial[::-1]
        if point is None:
            A[i, -1] = G[i, -1] = 1
        else:
            A[i] = [point**k for k in range(SIDE)]
            scale = math.prod(point - other for other in points if other != point)
            G[i] = [point**k / scale for k in range(3)]
    return A, B, G


_A, _B, _G = matrices()
_of_image, _of_gradient, _to_pixels = linear_map(_B), linear_map(_A), linear_map(_A.T)
_OF_KERNEL = {dtype: torch.from_numpy(np.kron(_G, _G)).to(dtype) for dtype in (torch.float32, torch.float64)}


def correlate(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """As `torch.nn.functional.conv2d`, with the weight in another order.

    Args:
        x: [N, I, H, W].
        weight: [3, 3, I, O].
        padding: Zeros on every side.

    Returns:
        [N, O, H + 2·padding - 2, W + 2·padding - 2], channels last.
    """
    (N, I, H, W), O = x.shape, weight.shape[3]
    assert weight.shape[2] == I
    assert weight.dtype == x.dtype
    panels = F.pad(weight, [0, -O % LANES]).unflatten(3, (-1, LANES)).transpose(2, 3).reshape(9, -1)
    kernel = _OF_KERNEL[x.dtype].mm(panels).view(NUMBERS**2, -1, I, LANES)
    size = (N, O, H + 2 * padding - 2, W + 2 * padding - 2)
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    tiles, threads = max(_tiles(y), 1), torch.get_num_threads()
    most = max(min(_TILES, _most_tiles(x, O) // threads), 1)
    turns = -(-tiles // (threads * most))  # of each thread
    tiles_at_a_time = round_up(-(-tiles // (threads * turns)), ROWS)
    threads = min(threads, -(-tiles // tiles_at_a_time))
    numbers, products = (
        x.new_empty(threads, NUMBERS**2, tiles_at_a_time, round_up(channels, LANES)).numpy() for channels in (I, O)
    )
    _correlate(pixels_first(channels_last(x)), kernel.numpy(), padding, numbers, products, pixels_first(y))
    return y


def weight_gradient(x: Tensor, dy: Tensor, padding: int) -> Tensor:
    """The gradient of the weight, if dy is that of the result of a correlation.

    Args:
        x: [N, I, H, W].
        dy: [N, O, h, w].
        padding: That of the correlation.

    Returns:
        [O, I, 3, 3].
    """
    I, O = x.shape[1], dy.shape[1]
    assert dy.dtype == x.dtype
    kernels = _SUM_KERNELS * I * O // (I + O)  # in tiles
    most = max(min(max(_most_tiles(x, O, _SUM_BYTES), kernels), _most_tiles(x, O)), 1)
    tiles = max(min(_tiles(dy), round_up(most, _TILES)), 1)
    pixels = x.new_empty(NUMBERS**2, tiles, round_up(I, LANES)).numpy()
    gradients = x.new_empty(NUMBERS**2, tiles, round_up(O, LANES)).numpy()
    sums = x.new_zeros(NUMBERS**2, round_up(O, LANES), round_up(I, LANES))
    x, dy = channels_last(x), channels_last(dy)
    _sum(pixels_first(x), pixels_first(dy), padding, pixels, gradients, _TILES, sums.numpy())
    return sums[:, :O, :I].flatten(1).t().mm(_OF_KERNEL[x.dtype]).view(O, I, 3, 3)


def _tiles(y: Tensor) -> int:
    """Of a result."""
    return len(y) * -(-y.shape[2] // SIDE) * -(-y.shape[3] // SIDE)


def _most_tiles(x: Tensor, O: int, size: int = _MOST_BYTES) -> int:
    """How many, transformed, fit into so many bytes, with as many products of O channels."""
    return size // (NUMBERS**2 * x.element_size() * (x.shape[1] + O))


@compiled
def _correlate(
    x: np.ndarray, kernel: np.ndarray, padding: int, numbers: np.ndarray, products: np.ndarray, y: np.ndarray
) -> None:
    """Numbers and products [threads, 36, tiles, channels up to a multiple of `LANES`] are room to work in."""
    N, h, w, _ = y.shape
    threads, _, step, _ = numbers.shape
    tiles = N * ((h + SIDE - 1) // SIDE) * ((w + SIDE - 1) // SIDE)
    for thread in prange(threads):
        for first in range(thread * step, tiles, threads * step):
            last = min(first + step, tiles)
            _correlate_tiles(x, kernel, padding, first, last, numbers[thread], products[thread], y)


@part
def _correlate_tiles(x, kernel, padding, first, last, numbers, products, y):  # type: ignore[no-untyped-def]
    _, h, w, _ = y.shape
    _transform(x, NUMBERS, padding, h, w, first, last, numbers, first)
    for k in range(len(kernel)):
        multiply(numbers[k], kernel[k], products[k])
    _transform_back(products, first, last, y)


@compiled
def _sum(
    x: np.ndarray,
    dy: np.ndarray,
    padding: int,
    pixels: np.ndarray,
    gradients: np.ndarray,
    tiles_at_a_time: int,
    sums: np.ndarray,
) -> None:
    """Pixels and gradients [36, tiles, channels up to a multiple of `LANES`] are room to work in."""
    N, h, w, _ = dy.shape
    step = pixels.shape[1]
    tiles = N * ((h + SIDE - 1) // SIDE) * ((w + SIDE - 1) // SIDE)
    for start in range(0, tiles, step):
        end = min(start + step, tiles)
        for strip in prange((end - start + _STRIP - 1) // _STRIP):
            first = start + _STRIP * strip
            last = min(first + _STRIP, end)
            _transform(x, NUMBERS, padding, h, w, first, last, pixels, start)
            _transform(dy, SIDE, 0, h, w, first, last, gradients, start)
        for k in prange(len(sums)):
            _add_products(gradients[k], pixels[k], end - start, tiles_at_a_time, sums[k])


@part
def _add_products(gradients, pixels, tiles, step, sums):  # type: ignore[no-untyped-def]
    I = sums.shape[1]
    panels = np.empty((I // LANES, step, LANES), sums.dtype)
    for first in range(0, tiles, step):
        num = min(tiles - first, step)
        for tile in range(num):
            for panel in range(I // LANES):
                copy(pixels, (first + tile) * I + panel * LANES, 0, panels, (panel * step + tile) * LANES, 0, LANES)
        add_transposed(gradients[first:], panels, sums, num)


@part
def _transform(x, t, padding, h, w, tile, last, into, first):  # type: ignore[no-untyped-def]
    """Makes 6×6 numbers of t×t pixels, of an image (6) or of a gradient (4), for some tiles of a result of h×w pixels.

    The numbers of tile ``first`` would lie at the beginning.
    """
    a, b = (h + SIDE - 1) // SIDE, (w + SIDE - 1) // SIDE
    while tile < last:
        row, column = tile // b, tile % b
        num = min(last - tile, b - column, _STRIP)
        top, left = SIDE * (row % a) - padding, SIDE * column - padding
        _transform_strip(x[row // a], t, top, left, num, into, tile - first)
        tile += num


@part
def _transform_strip(x, t, top, left, num, into, at):  # type: ignore[no-untyped-def]
    """The same for tiles side by side, the first of which begins at (top, left) of one image."""
    (H, W, C), (_, tiles, padded) = x.shape, into.shape
    width = SIDE * (num - 1) + t
    first, last = max(-left, 0), min(W - left, width)  # of these pixels, the image has
    along_columns = np.empty((NUMBERS, width, padded), x.dtype)
    for q in range(width):
        if q < first or q >= last:
            for k in range(NUMBERS):
                for c in range(padded):
                    along_columns[k, q, c] = 0
    if top >= 0 and top + t <= H and padded == C:
        pixels, start, row = x.reshape(H * W * C), (top * W + left + first) * C, W * C
    else:
        pixels, start, row = _with_zeros(x, t, top, left + first, last - first, padded), 0, (last - first) * padded
    size = (last - first) * padded
    if t == SIDE:
        _of_gradient(pixels, start, row, along_columns, first * padded, width * padded, size)
    else:
        _of_image(pixels, start, row, along_columns, first * padded, width * padded, size)
    for k in range(NUMBERS):
        for tile in range(num):
            start, result = (k * width + SIDE * tile) * padded, (k * NUMBERS * tiles + at + tile) * padded
            if t == SIDE:
                _of_gradient(along_columns, start, padded, into, result, tiles * padded, padded)
            else:
                _of_image(along_columns, start, padded, into, result, tiles * padded, padded)


@part
def _with_zeros(x, t, top, left, width, padded):  # type: ignore[no-untyped-def]
    """Rows of an image, the first of which may be above it, with zeros where it has no row or channel."""
    H, _, C = x.shape
    pixels = np.zeros((t, width, padded), x.dtype)
    for r in range(max(-top, 0), min(H - top, t)):
        for q in range(width):
            for c in range(C):
                pixels[r, q, c] = x[top + r, left + q, c]
    return pixels.reshape(t * width * padded)


@part
def _transform_back(numbers, first, last, y):  # type: ignore[no-untyped-def]
    """Makes 4×4 pixels of 6×6 numbers, for some tiles, of which those of the first lie at the beginning."""
    _, h, w, _ = y.shape
    a, b, tile = (h + SIDE - 1) // SIDE, (w + SIDE - 1) // SIDE, first
    while tile < last:
        row, column = tile // b, tile % b
        num = min(last - tile, b - column, _STRIP)
        _transform_strip_back(numbers, tile - first, num, SIDE * (row % a), SIDE * column, y[row // a])
        tile += num


@part
def _transform_strip_back(numbers, at, num, top, left, y):  # type: ignore[no-untyped-def]
    """The same for tiles side by side, the first of which begins at (top, left) of one image."""
    (h, w, O), (_, tiles, padded) = y.shape, numbers.shape
    size = num * padded
    lines, rest = np.empty((SIDE, NUMBERS, size), y.dtype), np.empty((SIDE, padded), y.dtype)
    for j in range(NUMBERS):
        start = (j * tiles + at) * padded
        _to_pixels(numbers, start, NUMBERS * tiles * padded, lines, j * size, NUMBERS * size, size)
    for r in range(min(SIDE, h - top)):
        for tile in range(num):
            start, column = r * NUMBERS * size + tile * padded, left + SIDE * tile
            if column + SIDE <= w and padded == O:
                _to_pixels(lines, start, size, y, ((top + r) * w + column) * O, O, O)
            else:
                _to_pixels(lines, start, size, rest, 0, padded, padded)
                for q in range(min(SIDE, w - column)):
                    for c in range(O):
                        y[top + r, column + q, c] = rest[q, c]
