"""Up-sampling, FIR filtering and down-sampling in one step (Karras et al. 2020, Appendix B).

A filtered resampling inserts zeros between the pixels, pads, convolves with a filter and keeps every n-th pixel.
Here that is one depthwise convolution, transposed when it goes up: no step in between is ever stored.
"""
# Shapes: N batch, C channels, H W image size, k filter size.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.ops.forward_mode import has_tangent
from styleforge.ops.kernels import Impl, uses_triton

Padding = tuple[int, int, int, int]
"""Pixels added (left, right, top, bottom); negative ones are cropped."""


def make_filter(taps: Sequence[float]) -> Tensor:
    """A separable low-pass filter from its 1-D taps, normalised to sum 1.

    Args:
        taps: For example (1, 3, 3, 1).

    Returns:
        [k, k] float32: the outer product of the taps with themselves.
    """
    f = torch.tensor(taps, dtype=torch.float32)
    f = torch.outer(f, f)
    return f / f.sum()


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: int | tuple[int, int, int, int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: Impl = "auto",
) -> Tensor:
    """Inserts zeros, pads, convolves every channel with one filter, and keeps every ``down``-th pixel.

    Args:
        x: [N, C, H, W], any float dtype.
        f: Filter [k, k], or [k] for a separable one (not normalised here).
        up: Factor of zero insertion: a pixel is followed by ``up - 1`` zeros.
        down: Every ``down``-th pixel of the result is kept, from the first.
        padding: Pixels added around the up-sampled image: one number, or (left, right, top, bottom); negative
            values crop.
        flip_filter: False convolves, True correlates; it makes no difference to a symmetric filter.
        gain: Factor on the result; up-sampling by ``up`` keeps its brightness with ``up``².
        impl: ``torch`` is one depthwise convolution, ``triton`` a kernel, ``auto`` what suits the device.

    Returns:
        [N, C, (H·up + top + bottom - k) // down + 1, (W·up + left + right - k) // down + 1].

    Raises:
        ValueError: ``x`` is no image batch, a factor is below 1, or the filter is larger than the padded image.
    """
    if x.ndim != 4:
        raise ValueError(f"x: got shape {list(x.shape)}, expected [N, C, H, W]; add the missing dimensions")
    if up < 1 or down < 1:
        raise ValueError(f"up, down: got {up}, {down}, expected whole numbers from 1; use 1 to leave the size")
    if f.ndim == 1:
        f = torch.outer(f, f)
    H, W = x.shape[2:]
    kh, kw = f.shape
    left, right, top, bottom = (padding,) * 4 if isinstance(padding, int) else padding
    if H * up + top + bottom < kh or W * up + left + right < kw:
        raise ValueError(
            f"f: got a {kh}×{kw} filter for {H * up + top + bottom}×{W * up + left + right} padded pixels, "
            "expected one that fits; pad more or use a smaller filter"
        )
    padding = (left, right, top, bottom)
    if f.requires_grad or has_tangent(x, f):
        impl = "torch"  # a depthwise convolution has these derivatives, too
    elif torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
        y: Tensor = _Filtered.apply(x, f, up, down, padding, flip_filter, gain, impl)
        return y
    return _filter(x, f, up, down, padding, flip_filter, gain, impl)


class _Filtered(torch.autograd.Function):
    """The filter for autograd: its derivative is the same function, with up and down swapped and the filter turned.

    PyTorch's own second derivative of a depthwise convolution takes one channel at a time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, f: Tensor, up: int, down: int, padding: Padding, flip_filter: bool, gain: float, impl: Impl
    ) -> Tensor:
        y = _filter(x, f, up, down, padding, flip_filter, gain, impl)
        kh, kw = f.shape
        left, top = kw - 1 - padding[0], kh - 1 - padding[2]
        # A gradient pixel meets the taps in reverse order; what comes after it makes up for the size of x.
        right = (x.shape[3] - 1) * up + kw - y.shape[3] * down - left
        bottom = (x.shape[2] - 1) * up + kh - y.shape[2] * down - top
        ctx.save_for_backward(f)
        ctx.arguments = (down, up, (left, right, top, bottom), not flip_filter, gain, impl)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        return _Filtered.apply(dy, f, *ctx.arguments), *[None] * 7


def _filter(
    x: Tensor, f: Tensor, up: int, down: int, padding: Padding, flip_filter: bool, gain: float, impl: Impl
) -> Tensor:
    """`upfirdn2d` as a kernel, or as one depthwise convolution."""
    if uses_triton(x, impl):
        from styleforge.ops.kernels.gpu.upfirdn2d import forward

        return forward(x, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=gain)
    C, (kh, kw), (left, right, top, bottom) = x.shape[1], f.shape, padding
    # conv2d correlates and conv_transpose2d convolves, so each needs the filter turned for the other direction.
    f = (f if flip_filter == (up == 1) else f.flip([0, 1])) * gain
    kernel = f.to(dtype=x.dtype, device=x.device).expand(C, 1, kh, kw).contiguous()  # [C, 1, k, k]
    if up == 1:
        if left == right >= 0 and top == bottom >= 0:
            return F.conv2d(x, kernel, stride=down, padding=(top, left), groups=C)
        return F.conv2d(F.pad(x, [left, right, top, bottom]), kernel, stride=down, groups=C)
    # A transposed convolution gives all (H-1)·up + k pixels that the image touches; the padding says which stay.
    left, right, top, bottom = left - kw + 1, right - kw + up, top - kh + 1, bottom - kh + up
    if left == right <= 0 and top == bottom <= 0:
        x = F.conv_transpose2d(x, kernel, stride=up, padding=(-top, -left), groups=C)
    else:
        x = F.pad(F.conv_transpose2d(x, kernel, stride=up, groups=C), [left, right, top, bottom])
    return x if down == 1 else x[:, :, ::down, ::down]


def filter2d(x: Tensor, f: Tensor, *, gain: float = 1.0) -> Tensor:
    """Filters an image [N, C, H, W] with [k, k], zeros outside, and keeps its size (k odd: no shift)."""
    k = f.shape[-1]
    return upfirdn2d(x, f, padding=(k // 2, (k - 1) // 2, k // 2, (k - 1) // 2), gain=gain)


def upsample2d(x: Tensor, f: Tensor, *, up: int = 2) -> Tensor:
    """Enlarges an image [N, C, H, W] ``up`` times with filter [k, k], centred and with its brightness kept."""
    k = f.shape[-1]
    before, after = (k + up - 1) // 2, (k - up) // 2
    return upfirdn2d(x, f, up=up, padding=(before, after, before, after), gain=up**2)


def downsample2d(x: Tensor, f: Tensor, *, down: int = 2) -> Tensor:
    """Shrinks an image [N, C, H, W] ``down`` times with filter [k, k], centred."""
    k = f.shape[-1]
    before, after = (k - down + 1) // 2, (k - down) // 2
    return upfirdn2d(x, f, down=down, padding=(before, after, before, after))


def nearest_upsample2d(x: Tensor, factor: int) -> Tensor:
    """Repeats every pixel of [N, C, H, W] ``factor`` times in both directions, as progressive growing does."""
    if factor == 1:
        return x
    N, C, H, W = x.shape
    x = x[:, :, :, None, :, None].expand(N, C, H, factor, W, factor)
    return x.reshape(N, C, H * factor, W * factor)


def box_downsample2d(x: Tensor, factor: int) -> Tensor:
    """Averages ``factor`` × ``factor`` pixels of [N, C, H, W], as progressive growing does."""
    return x if factor == 1 else F.avg_pool2d(x, factor)
