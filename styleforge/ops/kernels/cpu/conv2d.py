"""The gradient of a convolution's weight: for each place of the kernel, a product of two matrices of pixels.

These are the pixels of the gradient, and those of the image that this place of the kernel has met. They are copied to
where a thread finds them next to each other, some at a time.
"""
# Shapes: N batch, I/O input/output channels, k kernel size, H W image size, h w result size.

from __future__ import annotations

import numpy as np
from numba import prange
from torch import Tensor

from styleforge.ops.kernels.cpu.compiled import channels_last, compiled, part, pixels_first
from styleforge.ops.kernels.cpu.vectors import LANES, add_transposed, copy, round_up

_PIXELS = 64
"""So many are multiplied at a time, …"""
_CHANNELS = 96
"""… by so many output channels, at the most: what both take fits into a cache."""
_PARTS, _MIN_CHANNELS = 18, 32
"""Work for threads to share: places of the kernel, and parts of the output channels with at least so many in each."""
_BYTES = 3 << 20
"""So much of both images is gone through for all places of the kernel, while a larger cache holds it, before more is;
or as much as the kernel takes, which is read and written each time."""


def weight_gradient(x: Tensor, dy: Tensor, stride: int, padding: int, k: int) -> Tensor:
    """The gradient of the weight, if dy is that of the result of a convolution.

    Args:
        x: [N, I, H, W].
        dy: [N, O, h, w].
        stride: Every so many pixels of the result were kept.
        padding: Zeros on every side.
        k: Size of the kernel.

    Returns:
        [O, I, k, k].
    """
    O, w, I = dy.shape[1], dy.shape[3], x.shape[1]
    assert dy.dtype == x.dtype
    numbers = max(_BYTES // x.element_size(), k * k * O * I)
    rows = max(numbers // (w * (O + stride**2 * I)), 1)
    parts = min(-(-_PARTS // k**2), O // _MIN_CHANNELS)  # of the output channels
    channels = round_up(-(-O // max(parts, -(-O // _CHANNELS))), LANES)
    sums = x.new_zeros(k, k, round_up(O, LANES), round_up(I, LANES))
    x, dy = channels_last(x), channels_last(dy)
    _sum_pixels(pixels_first(x), pixels_first(dy), stride, padding, rows, channels, sums.numpy())
    return sums[:, :, :O, :I].permute(2, 3, 0, 1)


@compiled
def _sum_pixels(
    x: np.ndarray, dy: np.ndarray, stride: int, padding: int, rows: int, channels: int, sums: np.ndarray
) -> None:
    """Goes through so many rows of all gradients at a time, by work on so many channels and one place each."""
    k, _, O, _ = sums.shape
    N, h, _, _ = dy.shape
    slices = (O + channels - 1) // channels
    for start in range(0, N * h, rows):
        end = min(start + rows, N * h)
        for i in prange(k * k * slices):
            r, q, first = i // slices // k, i // slices % k, i % slices * channels
            total = sums[r, q, first : min(first + channels, O)]
            _add_pixels(x, dy, stride, r - padding, q - padding, start, end, first, total)


@part
def _add_pixels(x, dy, stride, top, left, start, end, channel, sums):  # type: ignore[no-untyped-def]
    """Of some rows of all of dy, and of the pixels of x that these have met, from (top, left) on."""
    (_, H, W, I), (_, h, w, O), (rows, columns) = x.shape, dy.shape, sums.shape
    gradients = np.zeros((_PIXELS, rows), x.dtype)
    pixels = np.zeros((columns // LANES, _PIXELS, LANES), x.dtype)
    whole_O, whole_I = min(rows, O - channel) // LANES * LANES, I // LANES * LANES
    first = max((-left + stride - 1) // stride, 0)  # of the columns that meet pixels, not zeros around the image
    last = min((W - left + stride - 1) // stride, w)
    num = 0
    for row in range(start, end):
        n, i, y = row // h, row % h, top + stride * (row % h)
        if y < 0 or y >= H:
            continue
        for j in range(first, last):
            copy(dy, (row * w + j) * O + channel, 0, gradients, num * rows, 0, whole_O)
            for c in range(whole_O, min(rows, O - channel)):
                gradients[num, c] = dy[n, i, j, channel + c]
            at = ((n * H + y) * W + left + stride * j) * I
            for panel in range(whole_I // LANES):
                copy(x, at + panel * LANES, 0, pixels, (panel * _PIXELS + num) * LANES, 0, LANES)
            for c in range(whole_I, I):
                pixels[c // LANES, num, c % LANES] = x[n, y, left + stride * j, c]
            num += 1
            if num == _PIXELS:
                add_transposed(gradients, pixels, sums, num)
                num = 0
    if num > 0:
        add_transposed(gradients, pixels, sums, num)
