"""The gradient of a convolution's weight: for each place of the kernel, a product of two matrices of pixels.

These are the pixels of the gradient and those of the image that this place of the kernel has met, where they lie:
nothing is copied.
"""
# Shapes: N batch, I/O input/output channels, k kernel size, H W image size, h w result size.

from __future__ import annotations

import numpy as np
from numba import prange
from torch import Tensor

from styleforge.ops.kernels.cpu.compiled import channels_last, compiled, part, pixels_first
from styleforge.ops.kernels.cpu.vectors import LANES, add_transposed

_ROWS = 32
"""So many output channels are summed up at a time, where there are so many; a multiple of `LANES`."""
_PIXELS = 64
"""… over so many pixels, or a row of them: what both fit into the cache next to the processor."""
_BYTES = 3 << 20
"""So much of both images is gone through at a time, …"""
_KERNELS = 1
"""… or as much as so many kernels take."""


def weight_gradient(x: Tensor, dy: Tensor, stride: int, padding: int, k: int) -> Tensor:
    """The gradient of the weight, if dy is that of the result of a convolution.

    Args:
        x: [N, I, H, W], I a multiple of `LANES`.
        dy: [N, O, h, w], O a multiple of `LANES`.
        stride: Every so many pixels of the result were kept.
        padding: Zeros on every side.
        k: Size of the kernel.

    Returns:
        [O, I, k, k].
    """
    (O, h, w), I = dy.shape[1:], x.shape[1]
    size = max(_BYTES // x.element_size(), _KERNELS * k * k * O * I)
    rows = max(size // (w * (O + stride**2 * I)), 1)
    sums = x.new_zeros(k, k, O, I)
    _sum(pixels_first(channels_last(x)), pixels_first(channels_last(dy)), stride, padding, rows, sums.numpy())
    return sums.permute(2, 3, 0, 1)


@compiled
def _sum(x: np.ndarray, dy: np.ndarray, stride: int, padding: int, step: int, sums: np.ndarray) -> None:
    k, _, O, I = sums.shape
    N, h, _, _ = dy.shape
    slices = (O + _ROWS - 1) // _ROWS
    for start in range(0, N * h, step):
        end = min(start + step, N * h)
        for item in prange(k * k * slices):
            place, channel = item // slices, item % slices * _ROWS
            r, q = place // k, place % k
            _add_place(x, dy, stride, r - padding, q - padding, start, end, channel, sums[r, q])


@part
def _add_place(x, dy, stride, top, left, start, end, channel, sums):  # type: ignore[no-untyped-def]
    """Adds some channels' products of pixels of dy, in some rows of all, and of x, beginning at (top, left)."""
    (_, H, W, I), (_, h, w, O) = x.shape, dy.shape
    sums = sums[channel : min(channel + _ROWS, O)]
    first = max((-left + stride - 1) // stride, 0)  # of the columns that meet pixels of the image
    last = min((W - left + stride - 1) // stride, w)
    step = max(_PIXELS // w, 1)
    while start < end:
        n, row = start // h, start % h
        rows = min(end - start, h - row, step)
        start += rows
        above = max((-top + stride - 1) // stride - row, 0)
        below = min((H - top + stride - 1) // stride - row, rows)
        for column in range(first, last, _PIXELS):
            a_at = ((n * h + row + above) * w + column) * O + channel
            b_at = ((n * H + top + stride * (row + above)) * W + left + stride * column) * I
            columns = min(last - column, _PIXELS)
            add_transposed(dy, a_at, w * O, O, x, b_at, stride * W * I, stride * I, sums, below - above, columns)
