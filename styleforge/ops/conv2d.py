"""Convolution, its transpose and its weight gradient: three bilinear functions that are each other's derivatives.

With y = C(x, w): the gradient of x is T(dy, w), the transposed convolution, and that of w is W(x, dy). The derivatives
of T and W are C, T and W again, so every order of differentiation, as R1 and path lengths need, runs the same three
quick routines. On GPUs PyTorch's own derivatives do that. On CPUs its weight gradient reaches a third to two thirds of
the convolution's rate, where `styleforge.ops.kernels.cpu` has a better one, and 3×3 convolutions of any of the three
kinds take fewer multiplications (`styleforge.ops.winograd`).
"""
# Shapes: N batch, O/I output/input channels, k kernel size, H W image size, h w result size.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.ops import winograd
from styleforge.ops.forward_mode import has_tangent
from styleforge.ops.kernels import takes_numba

WEIGHT_GRADIENT_CHANNELS = 32
"""From so many input and output channels on the weight gradient is taken by the kernel for CPUs."""


def conv2d(x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """Correlates an image with a kernel, as `torch.nn.functional.conv2d` does.

    Args:
        x: [N, I, H, W].
        weight: [O, I / groups, k, k].
        stride: Every so many pixels of the result are kept.
        padding: Zeros on every side.
        groups: Groups of channels, each with its own kernels.

    Returns:
        [N, O, h, w] with h = (H + 2·padding - k) // stride + 1.
    """
    assert weight.shape[2] == weight.shape[3]
    if groups > 1 or not _has_routines(x, weight):
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
    return _convolve(x, _in_layout(weight, x), stride, padding)


def conv_transpose2d(x: Tensor, weight: Tensor, *, stride: int = 1, groups: int = 1) -> Tensor:
    """The transpose of `conv2d` without padding, as `torch.nn.functional.conv_transpose2d` does.

    Args:
        x: [N, O, h, w].
        weight: [O, I / groups, k, k].
        stride: Of the convolution that this is the transpose of.
        groups: Groups of channels, each with its own kernels.

    Returns:
        [N, I, (h - 1)·stride + k, (w - 1)·stride + k].
    """
    assert weight.shape[2] == weight.shape[3]
    if groups > 1 or not _has_routines(x, weight):
        return F.conv_transpose2d(x, weight, stride=stride, groups=groups)
    height, width = ((size - 1) * stride + weight.shape[-1] for size in x.shape[2:])
    return _transpose(x, _in_layout(weight, x), stride, 0, (height, width))


def _has_routines(x: Tensor, weight: Tensor) -> bool:
    """Whether the routines below are quicker than PyTorch's, and know all that is asked for."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return not has_tangent(x, weight)


def _in_layout(weight: Tensor, image: Tensor) -> Tensor:
    """The weight channels-last as the image is, which oneDNN takes least time to rearrange, here and in derivatives."""
    if image.is_contiguous(memory_format=torch.channels_last):
        return weight.contiguous(memory_format=torch.channels_last)
    return weight


def _convolve(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """C(x, weight)."""
    if not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return _quick_convolve(x, weight, stride, padding)
    k = weight.shape[-1]
    size = [(n + 2 * padding - k) // stride + 1 for n in x.shape[2:]]
    path = _weight_path(weight, x, (len(x), len(weight), *size), stride, padding, transposed=False)
    y: Tensor = _Convolution.apply(x, weight, path, stride, padding)
    return y


def _transpose(y: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
    """T(y, weight): the gradient of the x, of the given size, that C makes y of."""
    if not (torch.is_grad_enabled() and (y.requires_grad or weight.requires_grad)):
        return _quick_transpose(y, weight, stride, padding, size)
    path = _weight_path(weight, y, (len(y), weight.shape[1], *size), stride, padding, transposed=True)
    x: Tensor = _Transposed.apply(y, weight, path, stride, padding, size)
    return x


def _weight_path(
    weight: Tensor, image: Tensor, shape: tuple[int, ...], stride: int, padding: int, *, transposed: bool
) -> Tensor | None:
    if not weight.requires_grad:
        return None
    path: Tensor = _WeightPath.apply(weight, [image], shape, stride, padding, transposed)
    return path


class _WeightPath(torch.autograd.Function):
    """The weight's part in C or T, as a node of autograd's graph of its own.

    A function of autograd is not told which of its gradients are wanted. R1 and path lengths ask for that of the image
    alone, first; so the way to the weight must not lead through the function that makes the image's gradient. This node
    hands that function a tensor of zeros that takes no memory, in the shape of the function's result, and gets the
    gradient of that result for it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        images: list[Tensor],  # in a list, such that no way to the image's own gradient leads through this node
        shape: tuple[int, ...],
        stride: int,
        padding: int,
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(weight, *images)
        ctx.stride, ctx.padding, ctx.transposed = stride, padding, transposed
        return weight.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        weight, image = ctx.saved_tensors
        x, dy = (d, image) if ctx.transposed else (image, d)
        return _WeightGradient.apply(x, dy, ctx.stride, ctx.padding, weight), None, None, None, None, None


class _Convolution(torch.autograd.Function):
    """C, without its gradient of the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, path: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, x.shape[2:]
        return _quick_convolve(x, weight, stride, padding)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        dx = _transpose(dy, weight, ctx.stride, ctx.padding, ctx.size) if ctx.needs_input_grad[0] else None
        return dx, None, dy if ctx.needs_input_grad[2] else None, None, None


class _Transposed(torch.autograd.Function):
    """T, without its gradient of the weight."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, path: Tensor | None, stride: int, padding: int, size: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding = stride, padding
        return _quick_transpose(y, weight, stride, padding, size)

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        dy = _convolve(dx, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        return dy, None, dx if ctx.needs_input_grad[2] else None, None, None, None


class _WeightGradient(torch.autograd.Function):
    """W(x, dy): the gradient of the weight, of the given one's shape, that C makes y of x with."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dy: Tensor, stride: int, padding: int, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, dy)
        ctx.stride, ctx.padding = stride, padding
        return _quick_weight_gradient(x, dy, weight, stride, padding)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        x, dy = ctx.saved_tensors
        need_x, need_dy, *_ = ctx.needs_input_grad
        dx = _transpose(dy, v, ctx.stride, ctx.padding, x.shape[2:]) if need_x else None
        ddy = _convolve(x, v, ctx.stride, ctx.padding) if need_dy else None
        return dx, ddy, None, None, None


# The routines, of which autograd knows nothing.


def _quick_convolve(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    fits = x.shape[1] == weight.shape[1]  # if not, PyTorch says so
    if fits and winograd.pays(x, weight, stride, padding) and takes_numba(x, weight):
        return winograd.correlate(x, weight, padding)
    return F.conv2d(x, weight, stride=stride, padding=padding)


def _quick_transpose(y: Tensor, weight: Tensor, stride: int, padding: int, size: Sequence[int]) -> Tensor:
    fits = y.shape[1] == weight.shape[0]  # if not, PyTorch says so
    if fits and winograd.pays(y, weight, stride, padding) and takes_numba(y, weight):
        return winograd.correlate_transposed(y, weight, padding)
    k = weight.shape[-1]
    rest = [n - ((m - 1) * stride - 2 * padding + k) for n, m in zip(size, y.shape[2:], strict=True)]
    return F.conv_transpose2d(y, weight, stride=stride, padding=padding, output_padding=rest)


def _quick_weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """W(x, dy), of the weight's shape; what the weight holds does not matter."""
    if takes_numba(x, dy):
        if winograd.pays(dy, weight, stride, padding):
            return winograd.weight_gradient(x, dy, padding)
        if min(weight.shape[:2]) >= WEIGHT_GRADIENT_CHANNELS:
            from styleforge.ops.kernels.cpu import conv2d as kernel

            return kernel.weight_gradient(x, dy, stride, padding, weight.shape[-1])
    _, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
    )
    return dw
