"""Modulation scale, noise, bias, activation, gain and clamp, in one pass over the features, forward and backward.

Backward never sees what went into the activation: the sign of the result tells the slope, and its magnitude whether
it was clamped. Sums are taken over pieces of an image and then over the pieces, in one order whatever the threads do.
"""
# Shapes: N batch, C channels, H W image size, P = H·W pixels, B pieces of an image.

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from styleforge.ops.kernels.cpu.compiled import channels_last, compiled, part, pixels_first

_DTYPES: dict[torch.dtype, type[np.floating]] = {torch.float32: np.float32, torch.float64: np.float64}
PIECE = 64
"""Pixels of a piece: what a thread takes at a time, and the length of the first sums."""


def forward(
    x: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    *,
    slope: float,
    gain: float,
    clamp: float | None,
    inplace: bool = False,
) -> Tensor:
    """clamp(leaky(x·scale + noise + bias)·gain).

    Args:
        x: [N, C, H, W], float32 or float64.
        scale: [N, C], or None.
        noise: [N or 1, 1, H, W], or None.
        bias: [C], or None.
        slope: Of negative values: 1 is linear, 0.2 the leaky ReLU of StyleGAN, 0 ReLU.
        gain: Factor on the activation, above 0.
        clamp: Values are limited to [-clamp, clamp]; None leaves them. NaN stays NaN.
        inplace: Whether the result overwrites ``x``, which then must be in channels-last layout.

    Returns:
        The shape and dtype of ``x``, in channels-last layout.
    """
    C = x.shape[1]
    x = channels_last(x)
    y = x if inplace else torch.empty_like(x)
    _forward(
        _pixels(x),
        _vectors(scale, x, (1, C), 1),
        _vectors(None if noise is None else noise.flatten(1), x, (1, x.shape[2:].numel()), 0),
        _vectors(bias, x, (C,), 0),
        *_numbers(x.dtype, slope, gain, clamp),
        _pixels(y),
        not inplace,
    )
    return y


def backward(
    dy: Tensor,
    y: Tensor,
    x: Tensor | None,
    scale: Tensor | None,
    noise_shape: torch.Size | tuple[int, ...] | None,
    *,
    slope: float,
    gain: float,
    clamp: float | None,
    needs: tuple[bool, bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of `forward` from its result.

    With d = dy · gain · (1 where y > 0, else slope) · (1 where |y| < clamp, else 0), they are d·scale, the sum of
    d·x over the pixels, the sum of d over what the noise was spread over, and the sum of d over batch and pixels.
    At 0 the slope is that of negative values. A result that equals the limit counts as clamped.

    Args:
        dy: [N, C, H, W], the gradient of the result.
        y: The result of `forward`, same shape.
        x: What `forward` took; may be None where the gradient of the scale is not needed.
        scale: As in `forward`.
        noise_shape: Shape of the noise that `forward` took; None without.
        slope: As in `forward`.
        gain: As in `forward`.
        clamp: As in `forward`.
        needs: Which of the gradients of (x, scale, noise, bias) to return; the others are None.

    Returns:
        Gradients of x (channels last), scale, noise and bias, in the dtype of ``y``.
    """
    (N, C), P = y.shape[:2], y.shape[2:].numel()
    need_x, need_scale, need_noise, need_bias = needs
    assert not need_scale or (x is not None and scale is not None)
    assert not need_noise or noise_shape is not None
    y, dy = channels_last(y), channels_last(dy)
    pieces = -(-P // PIECE)
    dx = torch.empty_like(y)
    sum_d = y.new_empty(N, pieces, C) if need_bias else y.new_empty(0, 0, 0)
    sum_dx = y.new_empty(N, pieces, C) if need_scale else y.new_empty(0, 0, 0)
    d_pixels = y.new_empty(N, P) if need_noise else y.new_empty(0, 0)
    _backward(
        _pixels(dy),
        _pixels(y),
        _pixels(channels_last(x) if x is not None and need_scale else y),
        _vectors(scale, y, (1, C), 1),
        *_numbers(y.dtype, slope, gain, clamp),
        _pixels(dx),
        sum_d.numpy(),
        sum_dx.numpy(),
        d_pixels.numpy(),
    )
    d_noise = None
    if need_noise and noise_shape is not None:
        d_noise = d_pixels.reshape(N, 1, *y.shape[2:]).sum_to_size(noise_shape)
    return (
        dx if need_x else None,
        sum_dx.sum(1) if need_scale else None,
        d_noise,
        sum_d.sum([0, 1]) if need_bias else None,
    )


def _pixels(x: Tensor) -> np.ndarray:
    """[N, C, H, W] as [N, P, C]."""
    N, C = x.shape[:2]
    return pixels_first(x).reshape(N, x.shape[2:].numel(), C)


def _vectors(values: Tensor | None, x: Tensor, shape: tuple[int, ...], default: float) -> np.ndarray:
    """A factor or an addend in the dtype of x, or one that changes nothing."""
    if values is None:
        return _constants(shape, x.dtype, default)
    array: np.ndarray = values.detach().to(x.dtype).contiguous().numpy()
    return array


@functools.lru_cache(maxsize=64)
def _constants(shape: tuple[int, ...], dtype: torch.dtype, value: float) -> np.ndarray:
    return np.full(shape, value, _DTYPES[dtype])


def _numbers(dtype: torch.dtype, slope: float, gain: float, clamp: float | None) -> tuple[np.floating, ...]:
    """The numbers in the dtype of the features; nothing is larger than NaN, so as a clamp this limits nothing."""
    return tuple(map(_DTYPES[dtype], (slope, gain, math.nan if clamp is None else clamp)))


@compiled
def _forward(
    x: np.ndarray,
    scale: np.ndarray,
    noise: np.ndarray,
    bias: np.ndarray,
    slope: float,
    gain: float,
    clamp: float,
    y: np.ndarray,
    copy: bool,
) -> None:
    N, P, _ = x.shape
    pieces = (P + PIECE - 1) // PIECE
    for piece in prange(N * pieces):
        _forward_piece(piece // pieces, piece % pieces * PIECE, x, scale, noise, bias, slope, gain, clamp, y, copy)


@part
def _forward_piece(n, first, x, scale, noise, bias, slope, gain, clamp, y, copy):  # type: ignore[no-untyped-def]
    _, P, C = x.shape
    s, m = n % len(scale), n % len(noise)
    for p in range(first, min(first + PIECE, P)):
        if copy:
            for c in range(C):
                y[n, p, c] = x[n, p, c]
        addend = noise[m, p]
        for c in range(C):
            v = y[n, p, c] * scale[s, c] + addend + bias[c]
            if v < 0:
                v = v * slope if slope != 0 else slope  # 0 times minus infinity would be NaN
            v *= gain
            if v > clamp:
                v = clamp
            elif v < -clamp:
                v = -clamp
            y[n, p, c] = v


@compiled
def _backward(
    dy: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    slope: float,
    gain: float,
    clamp: float,
    dx: np.ndarray,
    sum_d: np.ndarray,
    sum_dx: np.ndarray,
    d_pixels: np.ndarray,
) -> None:
    N, P, _ = y.shape
    pieces = (P + PIECE - 1) // PIECE
    for piece in prange(N * pieces):
        n, number = piece // pieces, piece % pieces
        _backward_piece(n, number, dy, y, x, scale, slope, gain, clamp, dx, sum_d, sum_dx, d_pixels)


@part
def _backward_piece(  # type: ignore[no-untyped-def]
    n, number, dy, y, x, scale, slope, gain, clamp, dx, sum_d, sum_dx, d_pixels
):
    _, P, C = y.shape
    s, negative = n % len(scale), gain * slope
    if sum_d.size > 0:
        sum_d[n, number] = 0
    if sum_dx.size > 0:
        sum_dx[n, number] = 0
    d = np.empty(C, y.dtype)
    for p in range(number * PIECE, min(number * PIECE + PIECE, P)):
        for c in range(C):
            d[c] = dy[n, p, c] * (gain if y[n, p, c] > 0 else negative)
            if abs(y[n, p, c]) >= clamp:
                d[c] = 0
        for c in range(C):
            dx[n, p, c] = d[c] * scale[s, c]
        if sum_d.size > 0:
            for c in range(C):
                sum_d[n, number, c] += d[c]
        if sum_dx.size > 0:
            for c in range(C):
                sum_dx[n, number, c] += d[c] * x[n, p, c]
        if d_pixels.size > 0:
            d_pixels[n, p] = d.sum()
