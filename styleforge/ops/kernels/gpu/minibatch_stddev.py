"""Minibatch standard deviation (Karras et al. 2018, Section 3); every feature is read once, and copied on the way."""
# Shapes: N batch, G group size, M = N / G groups, C channels, F statistics, H W image size, P = H·W pixels.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from styleforge.ops.kernels.gpu.tiles import (
    accumulation_dtype,
    compile_options,
    dense,
    is_channels_last,
    new_image,
    offsets,
    tile,
)


@triton.jit
def _forward_kernel(
    x: tl.tensor,  # [N, P, C]
    y: tl.tensor,  # [N, P, C + F]: gets the first C
    sums: tl.tensor,  # [M, F, tiles]: the standard deviations of a tile, added up
    M: tl.tensor,
    P: tl.tensor,
    C: tl.tensor,
    F: tl.constexpr,
    G: tl.constexpr,
    EPS: tl.constexpr,
    ACC: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """One program per group, statistic, and tile of pixels and of the statistic's channels."""
    blocks_p, blocks_c = tl.cdiv(P, BLOCK_P), tl.cdiv(C // F, BLOCK_C)
    pid = tl.program_id(0)
    statistic = pid // (blocks_p * blocks_c)  # of all M · F
    p = pid // blocks_c % blocks_p * BLOCK_P + tl.arange(0, BLOCK_P)
    c = pid % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (p < P)[:, None] & (c < C // F)[None, :]
    c += statistic % F * (C // F)
    mean = tl.full([BLOCK_P, BLOCK_C], 0.0, ACC)
    squares = tl.full([BLOCK_P, BLOCK_C], 0.0, ACC)
    for g in tl.static_range(G):  # Welford's update needs one reading, and takes no difference of large numbers
        n = (g * M + statistic // F).to(tl.int64)
        feature = tl.load(x + offsets(n, p, c, P, C, CHANNELS_LAST), inside, other=0.0)
        tl.store(y + offsets(n, p, c, P, C + F, CHANNELS_LAST), feature, inside)
        v = feature.to(ACC)
        delta = v - mean
        mean += delta * (1.0 / (g + 1))
        squares += delta * (v - mean)
    deviation = tl.where(inside, tl.sqrt(squares * (1.0 / G) + EPS), 0.0)
    tl.store(sums + pid, tl.sum(tl.sum(deviation, 1), 0))


@triton.jit
def _backward_kernel(
    dy: tl.tensor,  # [N, P, C + F]
    x: tl.tensor,  # [N, P, C]
    share: tl.tensor,  # [M, F]: gradient of a statistic, for each of the features it is taken from
    dx: tl.tensor,  # [N, P, C]
    M: tl.tensor,
    P: tl.tensor,
    C: tl.tensor,
    F: tl.constexpr,
    G: tl.constexpr,
    EPS: tl.constexpr,
    ACC: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """The gradient dy + share·(x - mean) / deviation, by the same programs; the second reading hits the cache."""
    blocks_p, blocks_c = tl.cdiv(P, BLOCK_P), tl.cdiv(C // F, BLOCK_C)
    pid = tl.program_id(0)
    statistic = pid // (blocks_p * blocks_c)
    p = pid // blocks_c % blocks_p * BLOCK_P + tl.arange(0, BLOCK_P)
    c = pid % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (p < P)[:, None] & (c < C // F)[None, :]
    c += statistic % F * (C // F)
    mean = tl.full([BLOCK_P, BLOCK_C], 0.0, ACC)
    squares = tl.full([BLOCK_P, BLOCK_C], 0.0, ACC)
    for g in tl.static_range(G):
        n = (g * M + statistic // F).to(tl.int64)
        v = tl.load(x + offsets(n, p, c, P, C, CHANNELS_LAST), inside, other=0.0).to(ACC)
        delta = v - mean
        mean += delta * (1.0 / (g + 1))
        squares += delta * (v - mean)
    factor = tl.load(share + statistic) / tl.sqrt(squares * (1.0 / G) + EPS)
    for g in tl.static_range(G):
        n = (g * M + statistic // F).to(tl.int64)
        at = offsets(n, p, c, P, C, CHANNELS_LAST)
        v = tl.load(x + at, inside, other=0.0).to(ACC)
        d = tl.load(dy + offsets(n, p, c, P, C + F, CHANNELS_LAST), inside, other=0.0).to(ACC)
        tl.store(dx + at, (d + factor * (v - mean)).to(dx.dtype.element_ty), inside)


class _MinibatchStddev(torch.autograd.Function):
    """The two kernels as a node of the graph; a gradient that itself needs one is made of PyTorch operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, G: int, F: int, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.arguments = (G, F, eps)
        x = dense(x)
        N, C, H, W = x.shape
        y = new_image(x, C + F, H, W)
        grid, constants = _launch_arguments(x, G, F, eps)
        sums = x.new_empty(N // G, F, grid[0] // (N // G * F), dtype=accumulation_dtype(x))
        with torch.cuda.device_of(x):
            _forward_kernel[grid](x, y, sums, N // G, H * W, C, **constants)
        statistics = sums.sum(2) / (C // F * H * W)  # [M, F]
        y[:, C:] = statistics.repeat(G, 1)[:, :, None, None]
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        G, F, eps = ctx.arguments
        N, C, H, W = x.shape
        (dy,) = gradients
        dtype = accumulation_dtype(x)
        share = dy[:, C:].to(dtype).reshape(G, N // G, F, H * W).sum([0, 3]) / (G * (C // F) * H * W)  # [M, F]
        if torch.is_grad_enabled():
            v = x.to(dtype).reshape(G, N // G, F, C // F, H, W)
            v = v - v.mean(0)  # [G, M, F, c, H, W]
            v = v * (v.square().mean(0) + eps).rsqrt() * share[:, :, None, None, None]
            return (dy[:, :C] + v.reshape(N, C, H, W)).to(x.dtype), None, None, None
        x = dense(x)
        dy = dense(dy, like=x)
        dx = torch.empty_like(x)
        grid, constants = _launch_arguments(x, G, F, eps)
        with torch.cuda.device_of(x):
            _backward_kernel[grid](dy, x, share.contiguous(), dx, N // G, H * W, C, **constants)
        return dx, None, None, None


def _launch_arguments(x: Tensor, G: int, F: int, eps: float) -> tuple[tuple[int], dict[str, Any]]:
    """The grid, and the constants that both kernels are compiled with."""
    N, C, H, W = x.shape
    block_p, block_c = tile(H * W, C // F, is_channels_last(x), most=512)  # small: the op sits where images are 4×4
    grid = (N // G * F * triton.cdiv(H * W, block_p) * triton.cdiv(C // F, block_c),)
    constants = {"F": F, "G": G, "EPS": float(eps), "BLOCK_P": block_p, "BLOCK_C": block_c}
    return grid, constants | compile_options(x)


def minibatch_stddev(x: Tensor, G: int, F: int, eps: float) -> Tensor:
    """`styleforge.ops.minibatch_stddev` with groups of exactly G samples, a divisor of the batch; twice differentiable.

    Args:
        x: [N, C, H, W], not empty, any float dtype and strides.
        G: Samples per group.
        F: Statistics, each over C / F channels.
        eps: Added to the variance.

    Returns:
        [N, C + F, H, W], in the memory layout of ``x``.
    """
    assert len(x) % G == 0 and x.shape[1] % F == 0, "groups and statistics must divide batch and channels"
    y: Tensor = _MinibatchStddev.apply(x, G, F, eps)
    return y
