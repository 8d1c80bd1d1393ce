"""The two kernels of `bias_act`: tiles of pixels and channels of one sample, in either memory layout."""
# Shapes: N batch, C channels, P = H·W pixels, blocks_p tiles along the pixels.

from __future__ import annotations

import triton
import triton.language as tl

from styleforge.ops.kernels.gpu.tiles import offsets


@triton.jit
def forward_kernel(
    x: tl.tensor,  # [N, P, C]
    scale: tl.tensor,  # [N, C] or None
    noise: tl.tensor,  # [N or 1, P, C or 1] or None
    bias: tl.tensor,  # [C] or None
    y: tl.tensor,  # [N, P, C]
    P: tl.tensor,
    C: tl.tensor,
    NOISE_PER_SAMPLE: tl.constexpr,
    NOISE_PER_CHANNEL: tl.constexpr,
    SLOPE: tl.constexpr,
    GAIN: tl.constexpr,
    CLAMP: tl.constexpr,
    ACC: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """The result clamp(leaky(x·scale + noise + bias)·gain), one program per tile of pixels and channels of a sample."""
    blocks_p, blocks_c = tl.cdiv(P, BLOCK_P), tl.cdiv(C, BLOCK_C)
    pid = tl.program_id(0)
    n = (pid // (blocks_p * blocks_c)).to(tl.int64)
    p = pid // blocks_c % blocks_p * BLOCK_P + tl.arange(0, BLOCK_P)
    c = pid % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (p < P)[:, None] & (c < C)[None, :]
    at = offsets(n, p, c, P, C, CHANNELS_LAST)
    v = tl.load(x + at, inside, other=0.0).to(ACC)  # [BLOCK_P, BLOCK_C]
    if scale is not None:
        v = v * tl.load(scale + n * C + c, c < C, other=0.0).to(ACC)[None, :]
    if noise is not None:
        sample = n if NOISE_PER_SAMPLE else n * 0
        if NOISE_PER_CHANNEL:
            v += tl.load(noise + offsets(sample, p, c, P, C, CHANNELS_LAST), inside, other=0.0).to(ACC)
        else:
            v += tl.load(noise + sample * P + p, p < P, other=0.0).to(ACC)[:, None]
    if bias is not None:
        v += tl.load(bias + c, c < C, other=0.0).to(ACC)[None, :]
    # Comparisons are written such that NaN goes through: a run that has gone wrong must show it.
    if SLOPE == 0:
        v = tl.where(v < 0, 0.0, v)
    elif SLOPE != 1:
        v = tl.where(v < 0, v * SLOPE, v)
    v = v * GAIN
    if CLAMP is not None:
        v = tl.where(v > CLAMP, CLAMP, tl.where(v < -CLAMP, -CLAMP, v))
    tl.store(y + at, v.to(y.dtype.element_ty), inside)


@triton.jit
def backward_kernel(
    dy: tl.tensor,  # [N, P, C]
    y: tl.tensor,  # [N, P, C]
    x: tl.tensor,  # [N, P, C]; None without sum_dx
    scale: tl.tensor,  # [N, C] or None
    dx: tl.tensor,  # [N, P, C] or None
    d_all: tl.tensor,  # [N, P, C] or None: the gradient behind the modulation scale
    d_pixels: tl.tensor,  # [N, groups, P] or None: its sum over the channels of a program
    sum_d: tl.tensor,  # [N, blocks_p, C] or None: its sum over the pixels of a tile
    sum_dx: tl.tensor,  # [N, blocks_p, C] or None: the same of d·x
    P: tl.tensor,
    C: tl.tensor,
    SLOPE: tl.constexpr,
    GAIN: tl.constexpr,
    CLAMP: tl.constexpr,
    ACC: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """All gradients at once; a program takes TILES tiles along the channels, which is one of the groups of channels."""
    blocks_p, groups = tl.cdiv(P, BLOCK_P), tl.cdiv(C, BLOCK_C * TILES)
    pid = tl.program_id(0)
    block = pid // groups  # of all N · blocks_p
    n = (block // blocks_p).to(tl.int64)
    p = block % blocks_p * BLOCK_P + tl.arange(0, BLOCK_P)
    over_channels = tl.full([BLOCK_P], 0.0, ACC)
    for i in range(TILES):
        c = (pid % groups * TILES + i) * BLOCK_C + tl.arange(0, BLOCK_C)
        inside = (p < P)[:, None] & (c < C)[None, :]
        at = offsets(n, p, c, P, C, CHANNELS_LAST)
        d = tl.load(dy + at, inside, other=0.0).to(ACC) * GAIN  # [BLOCK_P, BLOCK_C]
        result = tl.load(y + at, inside, other=0.0).to(ACC)
        if SLOPE != 1:
            d = tl.where(result > 0, d, d * SLOPE)
        if CLAMP is not None:
            d = tl.where(tl.abs(result) < CLAMP, d, 0.0)
        if dx is not None:
            into = d
            if scale is not None:
                into = d * tl.load(scale + n * C + c, c < C, other=0.0).to(ACC)[None, :]
            tl.store(dx + at, into.to(dx.dtype.element_ty), inside)
        if d_all is not None:
            tl.store(d_all + at, d, inside)
        if d_pixels is not None:
            over_channels += tl.sum(d, 1)
        row = block.to(tl.int64) * C + c
        if sum_d is not None:
            tl.store(sum_d + row, tl.sum(d, 0), c < C)
        if sum_dx is not None:
            tl.store(sum_dx + row, tl.sum(d * tl.load(x + at, inside, other=0.0).to(ACC), 0), c < C)
    if d_pixels is not None:
        tl.store(d_pixels + (n * groups + pid % groups) * P + p, over_channels, p < P)
