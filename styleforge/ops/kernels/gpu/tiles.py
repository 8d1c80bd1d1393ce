"""What all kernels share: the two dense layouts of an image, seen as [N, P, C], and its tiles [BLOCK_P, BLOCK_C].

A kernel is written once for both layouts: it addresses pixels and channels through `offsets`, and the compiler finds
out along which of the two the addresses are neighbours.
"""
# Shapes: N batch, C channels, H W image size, P = H·W pixels.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096
"""Most elements of a tile, a power of two."""


@triton.jit
def offsets(
    n: tl.tensor, p: tl.tensor, c: tl.tensor, P: tl.tensor, C: tl.tensor, CHANNELS_LAST: tl.constexpr
) -> tl.tensor:
    """Offsets [BLOCK_P, BLOCK_C] of pixels p [BLOCK_P] and channels c [BLOCK_C] of sample n, which must be int64."""
    if CHANNELS_LAST:
        return ((n * P + p) * C)[:, None] + c[None, :]
    else:  # noqa: RET505 (the compiler takes one of two branches, no early return)
        return p[:, None] + ((n * C + c) * P)[None, :]


def is_channels_last(x: Tensor) -> bool:
    """Whether an image lies in memory as [N, H, W, C]; where both layouts would be true, the strides decide."""
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and x.stride(3) != 1


def dense(x: Tensor, like: Tensor | None = None) -> Tensor:
    """``x`` in the layout of ``like``; or, without it, in its own if that is dense. Copies only where it must."""
    last = is_channels_last(x if like is None else like)
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Kernels calculate in float32, and in float64 where the features are float64."""
    return torch.promote_types(x.dtype, torch.float32)


def compile_options(x: Tensor) -> dict[str, Any]:
    """What every kernel is compiled with for dense features: its constants, and the compiler's own options."""
    return {
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "CHANNELS_LAST": is_channels_last(x),
        "num_warps": 8,  # 16 elements of a full tile for each thread
        "enable_fp_fusion": True,  # a·b + c in one instruction
    }


def new_image(x: Tensor, C: int, H: int, W: int) -> Tensor:
    """An uninitialised image [N, C, H, W] with the dtype, device and layout of ``x``."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty((x.shape[0], C, H, W), dtype=x.dtype, device=x.device, memory_format=layout)


def tile(num_pixels: int, num_channels: int, channels_last: bool, most: int = TILE) -> tuple[int, int]:
    """(BLOCK_P, BLOCK_C), powers of two, ``most`` elements: the memory's fast dimension is served first."""
    P, C = triton.next_power_of_2(max(num_pixels, 1)), triton.next_power_of_2(max(num_channels, 1))
    if channels_last:
        block_c = min(C, max(64, most // P))
        return min(P, most // block_c), block_c
    block_p = min(P, 128)
    return block_p, min(C, most // block_p)
