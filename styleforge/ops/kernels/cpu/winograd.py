"""What `styleforge.ops.winograd` does to tiles of an image: a matrix along columns, and the same along rows.

Several tiles that lie side by side are handled together. Their pixels are sorted by the place in a tile, such that
what one coefficient multiplies, of all these tiles and channels, lies together in memory.
"""
# Shapes: N batch, C channels, H W image size, a b rows and columns of tiles, t side of a tile, n numbers made of it.

from __future__ import annotations

import numpy as np
from numba import prange
from torch import Tensor

from styleforge.ops.kernels.cpu.compiled import compiled, part, pixels_first

TERMS = 6
"""Columns of a matrix, at most: a sum of so many products is written in one line, and stays in the processor."""
_STRIP = 512
"""So many numbers, tiles times channels, are handled together: the memory for that fits into a cache."""


def transform(x: Tensor, matrix: np.ndarray, step: int, first_row: int, padding: int, into: Tensor) -> None:
    """Makes n×n numbers, M·tile·Mᵀ, of each tile of an image.

    Args:
        x: [N, C, H, W], channels last.
        matrix: M [n, t].
        step: Pixels from one tile to the next.
        first_row: The first row of tiles to be transformed.
        padding: Zeros at the left and at the top; there are as many as wanted at the right and at the bottom.
        into: [n, n, N, a, b, C], contiguous, is overwritten.
    """
    coefficients, t = _with_all_terms(matrix, into), matrix.shape[1]
    _transform(pixels_first(x), coefficients, t, step, step * first_row - padding, padding, into.numpy())


def transform_back(numbers: Tensor, matrix: np.ndarray, first_row: int, into: Tensor) -> None:
    """Makes a tile of t×t pixels, M·numbers·Mᵀ, of n×n numbers each.

    Args:
        numbers: [n, n, N, a, b, C], contiguous.
        matrix: M [t, n].
        first_row: The row of the first of these tiles, which lie side by side.
        into: [N, C, H, W], channels last, is overwritten where the tiles lie.
    """
    coefficients = _with_all_terms(matrix, into)
    _transform_back(numbers.numpy(), coefficients, len(matrix) * first_row, pixels_first(into))


def _with_all_terms(matrix: np.ndarray, like: Tensor) -> np.ndarray:
    """A matrix with columns of zeros, in the dtype of a tensor."""
    return np.pad(matrix, [(0, 0), (0, TERMS - matrix.shape[1])]).astype(like.new_empty(0).numpy().dtype)


@compiled
def _transform(x: np.ndarray, matrix: np.ndarray, t: int, step: int, top: int, left: int, into: np.ndarray) -> None:
    _, _, N, a, b, C = into.shape
    strip = max(_STRIP // C, 1)
    strips = (b + strip - 1) // strip
    for i in prange(N * a * strips):
        n, row, first = i // (a * strips), i // strips % a, i % strips * strip
        _transform_strip(x[n], matrix, t, step, top + step * row, left, n, row, first, min(first + strip, b), into)


@part
def _transform_strip(x, matrix, t, step, y, left, n, row, first, last, into):  # type: ignore[no-untyped-def]
    H, W, C = x.shape
    size = (last - first) * C
    pixels = np.zeros((TERMS, step, last - first + 1, C), x.dtype)
    for r in range(max(-y, 0), min(H - y, t)):
        for q in range(step * (last - first - 1) + t):
            column = step * first + q - left
            if column >= 0 and column < W:
                for c in range(C):
                    pixels[r, q % step, q // step, c] = x[y + r, column, c]
    length = step * (last - first + 1) * C
    flat = pixels.reshape(TERMS, length)
    tile_rows = (flat[0], flat[1], flat[2], flat[3], flat[4], flat[5])
    along_columns = np.empty(length, x.dtype)
    p = along_columns.reshape(step, (last - first + 1) * C)
    columns = (
        _place(p, 0, t, C, size),
        _place(p, 1, t, C, size),
        _place(p, 2, t, C, size),
        _place(p, 3, t, C, size),
        _place(p, 4, t, C, size),
        _place(p, 5, t, C, size),
    )
    for k in range(len(matrix)):
        _combine(matrix[k], tile_rows, along_columns)
        for j in range(len(matrix)):
            _combine(matrix[j], columns, into[k, j, n, row].reshape(into.shape[4] * C)[first * C : last * C])


@part
def _place(places, q, t, C, size):  # type: ignore[no-untyped-def]
    """Of several tiles the pixels at place q of t; where there is none any others, since they count 0 times."""
    q = min(q, t - 1)
    step = len(places)
    return places[q % step][q // step * C : q // step * C + size]


@part
def _combine(factors, x, into):  # type: ignore[no-untyped-def]
    """The sum of the products of six factors and arrays; of most rows of the matrices two or more factors are 0."""
    first, last = 0, TERMS
    while first < 2 and factors[first] == 0:
        first += 1
    while last > 1 and factors[last - 1] == 0:
        last -= 1
    if last - first <= 4:
        f0, f1, f2, f3 = factors[first], factors[first + 1], factors[first + 2], factors[first + 3]
        x0, x1, x2, x3 = x[first], x[first + 1], x[first + 2], x[first + 3]
        for e in range(len(into)):
            into[e] = f0 * x0[e] + f1 * x1[e] + f2 * x2[e] + f3 * x3[e]
    else:
        f0, f1, f2, f3, f4, f5 = factors[0], factors[1], factors[2], factors[3], factors[4], factors[5]
        x0, x1, x2, x3, x4, x5 = x
        for e in range(len(into)):
            into[e] = f0 * x0[e] + f1 * x1[e] + f2 * x2[e] + f3 * x3[e] + f4 * x4[e] + f5 * x5[e]


@compiled
def _transform_back(numbers: np.ndarray, matrix: np.ndarray, top: int, into: np.ndarray) -> None:
    _, _, N, a, b, C = numbers.shape
    strip = max(_STRIP // C, 1)
    strips = (b + strip - 1) // strip
    for i in prange(N * a * strips):
        n, row, first = i // (a * strips), i // strips % a, i % strips * strip
        _transform_strip_back(numbers, matrix, top + len(matrix) * row, n, row, first, min(first + strip, b), into[n])


@part
def _transform_strip_back(numbers, matrix, y, n, row, first, last, into):  # type: ignore[no-untyped-def]
    H, W, C = into.shape
    t, size = len(matrix), len(numbers)
    along_columns = np.empty((size, last - first, C), into.dtype)
    for r in range(min(t, H - y)):
        for j in range(size):
            rows = (
                _row(numbers, 0, j, n, row, first, last),
                _row(numbers, 1, j, n, row, first, last),
                _row(numbers, 2, j, n, row, first, last),
                _row(numbers, 3, j, n, row, first, last),
                _row(numbers, 4, j, n, row, first, last),
                _row(numbers, 5, j, n, row, first, last),
            )
            _combine(matrix[r], rows, along_columns[j].reshape((last - first) * C))
        for tile in range(last - first):
            k2, k3, k4, k5 = min(2, size - 1), min(3, size - 1), min(4, size - 1), min(5, size - 1)
            columns = (
                along_columns[0, tile],
                along_columns[1, tile],
                along_columns[k2, tile],
                along_columns[k3, tile],
                along_columns[k4, tile],
                along_columns[k5, tile],
            )
            for q in range(min(t, W - t * (first + tile))):
                _combine(matrix[q], columns, into[y + r, t * (first + tile) + q])


@part
def _row(numbers, k, j, n, row, first, last):  # type: ignore[no-untyped-def]
    """The numbers of some tiles; any others where there are no such numbers, since they count 0 times."""
    return numbers[min(k, len(numbers) - 1), j, n, row, first:last].reshape((last - first) * numbers.shape[5])
