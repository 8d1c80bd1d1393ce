"""Modulation scale, noise, bias, activation, gain and clamp, in one pass over the features, forward and backward.

Backward never sees what went into the activation: the sign of the result tells the slope, and its magnitude whether
it was clamped. Sums over pixels and channels are taken tile by tile and then over the tiles, without atomics, so the
same input gives the same bits again.
"""
# Shapes: N batch, C channels, H W image size, P = H·W pixels.

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from styleforge.ops.kernels.gpu.bias_act_tiles import backward_kernel, forward_kernel
from styleforge.ops.kernels.gpu.tiles import accumulation_dtype, compile_options, dense, is_channels_last, tile

MANY_PROGRAMS = 512
"""As many keep all processors of a GPU busy."""


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
    """clamp(leaky(x·scale + noise + bias)·gain), calculated in float32 at least.

    Args:
        x: [N, C, H, W] or [N, C], any float dtype and strides.
        scale: [N, C], or None. The dtypes of scale, noise and bias need not be that of ``x``.
        noise: [N or 1, 1 or C, H, W], or None.
        bias: [C], or None.
        slope: Of negative values: 1 is linear, 0.2 the leaky ReLU of StyleGAN, 0 ReLU.
        gain: Factor on the activation, above 0.
        clamp: Values are limited to [-clamp, clamp]; None leaves them. NaN stays NaN.
        inplace: Whether the result may overwrite ``x``.

    Returns:
        Shape, dtype and memory layout of ``x``.
    """
    N, C = x.shape[:2]
    assert gain > 0 and slope >= 0, "backward could not tell the slope from the sign of the result"
    assert scale is None or scale.shape == (N, C)
    assert bias is None or bias.shape == (C,)
    assert noise is None or (noise.shape[0] in (1, N) and noise.shape[1] in (1, C) and noise.shape[2:] == x.shape[2:])
    x = dense(x)
    y = x if inplace else torch.empty_like(x)
    if x.numel() == 0:
        return y
    P, last = x.numel() // (N * C), is_channels_last(x)
    per_channel = noise is not None and noise.shape[1] > 1
    if noise is not None:
        noise = dense(noise, like=x) if per_channel else noise.contiguous()
    block_p, block_c = tile(P, C, last)
    grid = (N * triton.cdiv(P, block_p) * triton.cdiv(C, block_c),)
    with torch.cuda.device_of(x):
        forward_kernel[grid](
            x,
            None if scale is None else scale.contiguous(),
            noise,
            None if bias is None else bias.contiguous(),
            y,
            P,
            C,
            NOISE_PER_SAMPLE=noise is not None and noise.shape[0] > 1,
            NOISE_PER_CHANNEL=per_channel,
            SLOPE=float(slope),
            GAIN=float(gain),
            CLAMP=None if clamp is None else float(clamp),
            BLOCK_P=block_p,
            BLOCK_C=block_c,
            **compile_options(x),
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
    At 0 the slope is that of negative values, as in `torch.nn.functional.leaky_relu` and `torch.relu`. A result that
    equals the limit counts as clamped, in the dtype of ``y``; `torch.clamp` would let its gradient through where the
    value had met the limit exactly.

    Args:
        dy: [N, C, H, W] or [N, C], the gradient of the result.
        y: The result of `forward`, same shape.
        x: What `forward` took; may be None where the gradient of the scale is not needed.
        scale: As in `forward`.
        noise_shape: Shape of the noise that `forward` took; None without.
        slope: As in `forward`.
        gain: As in `forward`.
        clamp: As in `forward`.
        needs: Which of the gradients of (x, scale, noise, bias) to return; the others are None.

    Returns:
        Gradients of x (its dtype and layout), scale, noise and bias (float32, or float64 with float64 features).
    """
    N, C = y.shape[:2]
    need_x, need_scale, need_noise, need_bias = needs
    assert not need_scale or (x is not None and scale is not None)
    assert not need_noise or noise_shape is not None
    y = dense(y)
    dy, last = dense(dy, like=y), is_channels_last(y)
    P = math.prod(y.shape[2:])
    block_p, block_c = tile(P, C, last)
    blocks_p, blocks_c = triton.cdiv(P, block_p), triton.cdiv(C, block_c)
    # A program that takes several tiles sums over their channels: worth it once there are programs enough.
    tiles = max(min(N * blocks_p * blocks_c // MANY_PROGRAMS, blocks_c), 1)
    groups = triton.cdiv(blocks_c, tiles)
    per_channel = noise_shape is not None and noise_shape[1] > 1

    dtype = accumulation_dtype(y)
    dx = torch.empty_like(y) if need_x else None
    d_all = torch.empty_like(y, dtype=dtype) if need_noise and per_channel else None
    d_pixels = y.new_empty(N, groups, P, dtype=dtype) if need_noise and not per_channel else None
    sum_d = y.new_empty(N, blocks_p, C, dtype=dtype) if need_bias else None
    sum_dx = y.new_empty(N, blocks_p, C, dtype=dtype) if need_scale else None
    if y.numel() > 0:
        with torch.cuda.device_of(y):
            backward_kernel[(N * blocks_p * groups,)](
                dy,
                y,
                dense(x, like=y) if x is not None and need_scale else None,
                None if scale is None else scale.contiguous(),
                dx,
                d_all,
                d_pixels,
                sum_d,
                sum_dx,
                P,
                C,
                SLOPE=float(slope),
                GAIN=float(gain),
                # In the dtype of y, such that a clamped value equals the limit.
                CLAMP=None if clamp is None else torch.tensor(clamp, dtype=y.dtype, device="cpu").item(),
                TILES=tiles,
                BLOCK_P=block_p,
                BLOCK_C=block_c,
                **compile_options(y),
            )

    d_noise = d_all if d_pixels is None else d_pixels.sum(1).reshape(N, 1, *y.shape[2:])
    return (
        dx,
        None if sum_dx is None else sum_dx.sum(1),
        None if d_noise is None or noise_shape is None else d_noise.sum_to_size(noise_shape),
        None if sum_d is None else sum_d.sum([0, 1]),
    )
