"""3×3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016, Section 4.1), on CPUs.

Tiles of 6×6 pixels that overlap by two are transformed to 36 numbers of which each meets one number of the transformed
kernel; what comes of that is transformed back to 4×4 pixels: 36 multiplications in place of 144. For each of the 36
numbers that is a matrix product over channels. `styleforge.ops.kernels.cpu.winograd` does it.

Rounding errors in float32 are about 1e-6 of the result, as a root mean square; those of PyTorch's convolutions, which
do not do this on CPUs, grow from 0.3e-6 at 32 channels to 1.2e-6 at 512. Those of weight gradients are 0.6 to 2 times
PyTorch's, less the larger the pictures.
"""
# Shapes: N batch, I/O input/output channels, k kernel size, H W image size, h w result size.

from __future__ import annotations

import torch
from torch import Tensor

MIN_CHANNELS = 32
"""From so many input and output channels on, what the products save exceeds what the transforms cost."""
MIN_PIXELS = 256
"""The same for the pixels of an image: below, reading the kernels takes longer than multiplying them.

It is not about the pixels of a batch: how many images there are at a time must not choose the way.
"""


def pays(x: Tensor, weight: Tensor, stride: int, padding: int) -> bool:
    """Whether the functions below apply to a convolution, and are quicker than what PyTorch does.

    Args:
        x: [N, I, H, W], or what has the size of the convolution's result.
        weight: [O, I, k, k].
        stride: Every so many pixels of the result are kept.
        padding: Zeros on every side.
    """
    O, I, k, _ = weight.shape
    if x.dtype not in (torch.float32, torch.float64) or x.dtype != weight.dtype or x.ndim != 4:
        return False
    applies = k == 3 and stride == 1 and 0 <= padding <= 2 and min(x.shape[2:]) >= k
    return applies and min(O, I) >= MIN_CHANNELS and x.shape[2] * x.shape[3] >= MIN_PIXELS


def correlate(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """As `torch.nn.functional.conv2d`.

    Args:
        x: [N, I, H, W].
        weight: [O, I, 3, 3].
        padding: Zeros on every side.

    Returns:
        [N, O, H + 2·padding - 2, W + 2·padding - 2], channels last.
    """
    from styleforge.ops.kernels.cpu import winograd

    return winograd.correlate(x, weight.permute(2, 3, 1, 0), padding)


def correlate_transposed(y: Tensor, weight: Tensor, padding: int) -> Tensor:
    """As `torch.nn.functional.conv_transpose2d`: the gradient of x, if y is that of the result of `correlate`.

    Args:
        y: [N, O, h, w].
        weight: [O, I, 3, 3].
        padding: That of `correlate`.

    Returns:
        [N, I, h - 2·padding + 2, w - 2·padding + 2], channels last.
    """
    from styleforge.ops.kernels.cpu import winograd

    return winograd.correlate(y, weight.flip([2, 3]).permute(2, 3, 0, 1), 2 - padding)


def weight_gradient(x: Tensor, dy: Tensor, padding: int) -> Tensor:
    """The gradient of the weight, if dy is that of the result of `correlate`.

    Args:
        x: [N, I, H, W].
        dy: [N, O, h, w].
        padding: That of `correlate`.

    Returns:
        [O, I, 3, 3].
    """
    from styleforge.ops.kernels.cpu import winograd

    return winograd.weight_gradient(x, dy, padding)
