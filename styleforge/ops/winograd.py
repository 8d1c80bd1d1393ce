"""3×3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016, Section 4.1), on CPUs.

Tiles of 6×6 pixels that overlap by two are transformed to 36 numbers of which each meets one number of the transformed
kernel; what comes of that is transformed back to 4×4 pixels: 36 multiplications in place of 144. For each of the 36
numbers that is a matrix product over channels. `styleforge.ops.kernels.cpu` has the transforms.

Rounding errors in float32 are 1.4 to 1.8 times those of PyTorch's convolutions, which do not do this on CPUs, and 0.8
to 2 times those of its gradient of the weight, measured at the numbers of channels that go this way.
"""
# Shapes: N batch, I/O input/output channels, H W image size, h w result size, a b rows and columns of tiles.

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from styleforge.ops.pieces import pieces

MIN_CHANNELS = 256
"""From so many input and output channels on, what the products save exceeds what the transforms cost."""
MIN_CHANNELS_WEIGHT = 32
"""The same for `weight_gradient`, whose alternatives are slower."""
MIN_PIXELS = 256
"""The same for the pixels of an image: below, reading the kernels takes longer than multiplying them.

It is not about the pixels of a batch: how many images there are at a time must not choose the way.
"""
_PIECE_BYTES = 4 << 20
"""So much of the transformed images is multiplied at a time, such that caches hold much of it, …"""
_PIECE_KERNELS = 3
"""… or as much as so many transformed kernels take, which are read, or summed up, each time, …"""
_PIECE_MOST = 256 << 20
"""… but no more than this, and at least one row of tiles."""

SIDE, NUMBERS = 4, 6
"""Pixels of a result, and numbers, along a side of a tile."""
_POINTS = (0, 1, -1, Fraction(1, 2), -2)
"""Of all that were tried the ones with the smallest rounding errors; the sixth is infinity."""


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A [6, 4], B [6, 6] and G [6, 3]: 4 pixels of a row are Aᵀ(G·kernel ⊙ B·pixels); Lavin and Gray call B Bᵀ.

    A kernel and a result are coefficients of two polynomials. Their product, of which the convolution is the
    transpose, is known from its values at the points; Lagrange's polynomials make coefficients of these again.
    """
    points = [Fraction(p) for p in _POINTS]
    A, B, G = np.zeros((NUMBERS, SIDE)), np.zeros((NUMBERS, NUMBERS)), np.zeros((NUMBERS, 3))
    for i, point in enumerate([*points, None]):
        polynomial = np.array([Fraction(1)])  # that is 0 at all other points, from its highest coefficient
        for other in points:
            if other != point:
                polynomial = np.convolve(polynomial, [Fraction(1), -other])
        B[i, : len(polynomial)] = polynomial[::-1]
        if point is None:
            A[i, -1] = G[i, -1] = 1
        else:
            A[i] = [point**k for k in range(SIDE)]
            scale = math.prod(point - other for other in points if other != point)
            G[i] = [point**k / scale for k in range(3)]
    return A, B, G


_A, _B, _G = _matrices()


def pays(x: Tensor, weight: Tensor, stride: int, padding: int, *, weight_gradient: bool = False) -> bool:
    """Whether the functions below apply to a convolution, and are quicker than what PyTorch does.

    Args:
        x: [N, I, H, W], or what has the size of the convolution's result.
        weight: [O, I, k, k].
        stride: Every so many pixels of the result are kept.
        padding: Zeros on every side.
        weight_gradient: Whether it is about that function, and not about the others.
    """
    O, I, k, _ = weight.shape
    if x.dtype not in (torch.float32, torch.float64):
        return False
    channels = MIN_CHANNELS_WEIGHT if weight_gradient else MIN_CHANNELS
    applies = k == 3 and stride == 1 and padding <= 2 and min(x.shape[2:]) >= k
    return applies and min(O, I) >= channels and x.shape[2] * x.shape[3] >= MIN_PIXELS


def correlate(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """As `torch.nn.functional.conv2d`.

    Args:
        x: [N, I, H, W].
        weight: [O, I, 3, 3].
        padding: Zeros on every side.

    Returns:
        [N, O, H + 2·padding - 2, W + 2·padding - 2], channels last.
    """
    return _multiply(x, _transform_kernel(weight).transpose(1, 2), padding)


def correlate_transposed(y: Tensor, weight: Tensor, padding: int) -> Tensor:
    """As `torch.nn.functional.conv_transpose2d`: the gradient of x, if y is that of the result of `correlate`.

    Args:
        y: [N, O, h, w].
        weight: [O, I, 3, 3].
        padding: That of `correlate`.

    Returns:
        [N, I, h - 2·padding + 2, w - 2·padding + 2], channels last.
    """
    return _multiply(y, _transform_kernel(weight.flip([2, 3])), 2 - padding)


def weight_gradient(x: Tensor, dy: Tensor, padding: int) -> Tensor:
    """The gradient of the weight, if dy is that of the result of `correlate`.

    Args:
        x: [N, I, H, W].
        dy: [N, O, h, w].
        padding: That of `correlate`.

    Returns:
        [O, I, 3, 3].
    """
    from styleforge.ops.kernels.cpu.winograd import transform

    (O, h, w), I = dy.shape[1:], x.shape[1]
    x, dy = _channels_last(x), _channels_last(dy)
    sums = x.new_zeros(NUMBERS**2, O, I)
    work = _Work(x, O, h, w)
    for samples, rows, size in work:
        pixels, gradients = work.memory(*size, I), work.memory(*size, O, after=I)
        transform(x[samples], _B, SIDE, rows.start, padding, into=pixels)
        transform(dy[samples], _A, SIDE, rows.start, 0, into=gradients)
        sums.baddbmm_(gradients.view(NUMBERS**2, -1, O).transpose(1, 2), pixels.view(NUMBERS**2, -1, I))
    return sums.reshape(NUMBERS**2, O * I).t().mm(_of_kernels(x)).reshape(O, I, 3, 3)


def _multiply(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """X [N, I, H, W] with a transformed kernel [36, I, O]."""
    from styleforge.ops.kernels.cpu.winograd import transform, transform_back

    (N, I, H, W), O = x.shape, kernel.shape[2]
    h, w = H + 2 * padding - 2, W + 2 * padding - 2
    x = _channels_last(x)
    y = torch.empty(N, O, h, w, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    work = _Work(x, O, h, w)
    for samples, rows, size in work:
        pixels, products = work.memory(*size, I), work.memory(*size, O, after=I)
        transform(x[samples], _B, SIDE, rows.start, padding, into=pixels)
        torch.bmm(pixels.view(NUMBERS**2, -1, I), kernel, out=products.view(NUMBERS**2, -1, O))
        transform_back(products, _A.T, rows.start, into=y[samples])
    return y


class _Work:
    """A batch in pieces, and the memory that all of them use one after the other, so that caches still hold it."""

    def __init__(self, x: Tensor, O: int, h: int, w: int):
        """For x [N, I, H, W] and a result [N, O, h, w]."""
        I, a, self._b = x.shape[1], -(-h // SIDE), -(-w // SIDE)
        kernel, tile = (NUMBERS**2 * x.element_size() * channels for channels in (I * O, I + O))
        size = min(max(_PIECE_BYTES, _PIECE_KERNELS * kernel), _PIECE_MOST)
        self._pieces = list(pieces(len(x), a, self._b, size // tile))
        self._room = max((math.prod(size) for _, _, size in self), default=0)
        self._memory = x.new_empty(self._room * (I + O))

    def __iter__(self) -> Iterator[tuple[slice, slice, tuple[int, int, int, int, int]]]:
        """Which images, which of their rows of tiles, and the size [6, 6, N, a, b] of what they are transformed to."""
        for samples, rows in self._pieces:
            yield samples, rows, (NUMBERS, NUMBERS, samples.stop - samples.start, rows.stop - rows.start, self._b)

    def memory(self, *shape: int, after: int = 0) -> Tensor:
        """Memory of a shape, behind that of so many channels."""
        start = self._room * after
        return self._memory[start : start + math.prod(shape)].view(shape)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _of_kernels(like: Tensor) -> Tensor:
    """The transform of kernels along both axes [36, 9], in the dtype of a tensor."""
    return torch.from_numpy(np.kron(_G, _G)).to(like.dtype)


def _transform_kernel(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] -> [36, O, I]."""
    O, I = weight.shape[:2]
    return _of_kernels(weight).mm(weight.reshape(O * I, 9).t()).reshape(-1, O, I)
