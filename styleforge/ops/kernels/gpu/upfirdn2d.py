"""Up-sampling, FIR filtering and down-sampling in one pass (Karras et al. 2020, Appendix B).

Of the up-sampled image only the real pixels are read: an output meets every ``up``-th tap of the filter, from a first
one that depends on its place (its phase).
"""
# Shapes: N batch, C channels, H W image size, K_y K_x filter size, P pixels of a tile.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from styleforge.ops.kernels.gpu.tiles import compile_options, dense, is_channels_last, new_image, offsets, tile


@triton.jit
def _first_pixel(place: tl.tensor, LEAD: tl.constexpr, UP: tl.constexpr, DOWN: tl.constexpr) -> tl.tensor:
    """First real pixel under the filter of an output, and the tap that meets it.

    LEAD is how many pixels of the up-sampled image lie before tap 0 of output 0; it is negative where padding lies.
    Whole image pixels are added to it, and taken off again, since integer division rounds towards zero.
    """
    shift = (-LEAD + UP - 1) // UP if LEAD < 0 else 0
    start = place * DOWN + (LEAD + shift * UP)
    pixel = (start + UP - 1) // UP
    return pixel - shift, pixel * UP - start


@triton.jit
def _kernel(
    x: tl.tensor,  # [N, C, H, W]
    f: tl.tensor,  # [K_y, K_x]
    y: tl.tensor,  # [N, C, OH, OW]
    C: tl.tensor,
    H: tl.tensor,
    W: tl.tensor,
    OH: tl.tensor,
    OW: tl.tensor,
    LEAD_Y: tl.constexpr,
    LEAD_X: tl.constexpr,
    K_Y: tl.constexpr,
    K_X: tl.constexpr,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
    TURN: tl.constexpr,
    GAIN: tl.constexpr,
    ACC: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """One program per rectangle of output pixels and block of channels of a sample."""
    blocks_h, blocks_w, blocks_c = tl.cdiv(OH, BLOCK_H), tl.cdiv(OW, BLOCK_W), tl.cdiv(C, BLOCK_C)
    pid = tl.program_id(0)
    rectangle = pid // blocks_c
    n = (rectangle // (blocks_h * blocks_w)).to(tl.int64)
    i = tl.arange(0, BLOCK_H * BLOCK_W)
    oy = rectangle // blocks_w % blocks_h * BLOCK_H + i // BLOCK_W  # [P]
    ox = rectangle % blocks_w * BLOCK_W + i % BLOCK_W
    c = pid % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    top, tap_y = _first_pixel(oy, LEAD_Y, UP, DOWN)
    left, tap_x = _first_pixel(ox, LEAD_X, UP, DOWN)
    acc = tl.full([BLOCK_H * BLOCK_W, BLOCK_C], 0.0, ACC)
    for j in range((K_Y + UP - 1) // UP):
        for k in tl.static_range((K_X + UP - 1) // UP):
            iy, ix = top + j, left + k
            real = (iy >= 0) & (iy < H) & (ix >= 0) & (ix < W)
            at = offsets(n, iy * W + ix, c, H * W, C, CHANNELS_LAST)
            v = tl.load(x + at, real[:, None] & (c < C)[None, :], other=0.0).to(ACC)
            ky, kx = tap_y + j * UP, tap_x + k * UP
            if UP == 1:  # All outputs meet the same tap: one number instead of one per pixel.
                ky, kx = j, k
            tap = (K_Y - 1 - ky) * K_X + K_X - 1 - kx if TURN else ky * K_X + kx
            weight = tl.load(f + tap, (ky < K_Y) & (kx < K_X), other=0.0).to(ACC)
            acc += v * (weight if UP == 1 else weight[:, None])
    inside = ((oy < OH) & (ox < OW))[:, None] & (c < C)[None, :]
    at = offsets(n, oy * OW + ox, c, OH * OW, C, CHANNELS_LAST)
    tl.store(y + at, (acc * GAIN).to(y.dtype.element_ty), inside)


def forward(
    x: Tensor,
    f: Tensor,
    *,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """`styleforge.ops.upfirdn2d`, whose arguments these are, without its checks and derivatives.

    Args:
        x: [N, C, H, W], any float dtype and strides.
        f: [k, k], on any device. It takes part in float32 (float64 with float64 features), whatever the dtype of ``x``.
        up: Factor of zero insertion.
        down: Every ``down``-th pixel of the result is kept.
        padding: (left, right, top, bottom).
        flip_filter: False convolves, True correlates.
        gain: Factor on the result.

    Returns:
        The filtered image, in the memory layout of ``x``.
    """
    x, f = dense(x), f.to(x.device).contiguous()
    left, right, top, bottom = padding
    N, C, H, W = x.shape
    OH, OW = (H * up + top + bottom - f.shape[0]) // down + 1, (W * up + left + right - f.shape[1]) // down + 1
    last = is_channels_last(x)
    y = new_image(x, C, OH, OW)
    if y.numel() == 0 or x.numel() == 0:
        return y.zero_()
    block_p, block_c = tile(OH * OW, C, last)
    block_w = min(triton.next_power_of_2(OW), 8 if last else 64, block_p)
    block_h = min(triton.next_power_of_2(OH), block_p // block_w)
    grid = (N * triton.cdiv(OH, block_h) * triton.cdiv(OW, block_w) * triton.cdiv(C, block_c),)
    with torch.cuda.device_of(x):
        _kernel[grid](
            x,
            f,
            y,
            C,
            H,
            W,
            OH,
            OW,
            LEAD_Y=-top,
            LEAD_X=-left,
            K_Y=f.shape[0],
            K_X=f.shape[1],
            UP=up,
            DOWN=down,
            TURN=not flip_filter,
            GAIN=float(gain),
            BLOCK_H=block_h,
            BLOCK_W=block_w,
            BLOCK_C=block_c,
            **compile_options(x),
        )
    return y
