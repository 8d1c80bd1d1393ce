"""3×3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016, Section 4.1), on CPUs.

Tiles of 4×4 pixels that overlap by two are transformed to 16 numbers of which each meets one number of the transformed
kernel; what comes of that is transformed back to 2×2 pixels: 16 multiplications in place of 36. For each of the 16
numbers that is a matrix product over channels. The transforms of pixels take sums and differences only, and the
rounding errors are no larger than those of a plain convolution.

PyTorch's convolutions on CPUs do not do this in float32.
"""
# Shapes: N batch, I/O input/output channels, H W image size, h w result size, a b rows and columns of tiles, T tiles.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.ops.pieces import pieces

MIN_CHANNELS = 256
"""From so many input and output channels on, what the products save exceeds what the transforms cost."""
MIN_CHANNELS_WEIGHT = 128
"""The same for `weight_gradient`, whose alternatives are slower."""
MIN_PIXELS = 256
"""The same for the pixels of an image: below, reading the kernels takes longer than multiplying them.

It is not about the pixels of a batch: how many images there are at a time must not choose the way.
"""
_PIECE_BYTES = 12 << 20
"""So much of the transformed input is multiplied at a time, such that caches hold much of it, or one row of tiles."""
_PIECE_BYTES_WEIGHT = 96 << 20
"""The same for `weight_gradient`, which reads and writes 16 sums per weight for each piece."""

# Of the three transforms along one axis that of the kernel; along both axes they are products of two.
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))


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
    applies = k == 3 and stride == 1 and padding <= 2
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
    (N, O, height, width), I = dy.shape, x.shape[1]
    rows, columns = -(-height // 2), -(-width // 2)
    padded = _pad_input(x, padding, rows, columns)
    if height % 2 or width % 2:
        dy = F.pad(dy, [0, width % 2, 0, height % 2])
    dy = dy.permute(0, 2, 3, 1)  # [N, 2·a, 2·b, O]
    sums = x.new_zeros(16, O, I)
    for piece in pieces(N, rows, columns, _PIECE_BYTES_WEIGHT // (16 * (O + I) * x.element_size())):
        pixels = _transform_input(_seen_by(piece, padded))  # [16, T, I]
        gradients = _transform_gradient(_made_by(piece, dy))  # [16, T, O]
        sums.baddbmm_(gradients.transpose(1, 2), pixels)
    return sums.reshape(16, O * I).t().mm(_kernel_matrix(x)).reshape(O, I, 3, 3)


def _multiply(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """X [N, I, H, W] with a transformed kernel [16, I, O]."""
    N, I, H, W = x.shape
    height, width, O = H + 2 * padding - 2, W + 2 * padding - 2, kernel.shape[2]
    rows, columns = -(-height // 2), -(-width // 2)
    padded = _pad_input(x, padding, rows, columns)
    # Not the view of what lies channels last: autograd lets no one overwrite a function's result that is a view.
    y = torch.empty((N, O, 2 * rows, 2 * columns), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for piece in pieces(N, rows, columns, _PIECE_BYTES // (16 * I * x.element_size())):
        products = torch.bmm(_transform_input(_seen_by(piece, padded)), kernel)  # [16, T, O]
        _transform_result(products, into=_made_by(piece, y.permute(0, 2, 3, 1)))
    if y.shape[2:] == (height, width):
        return y
    return y[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _pad_input(x: Tensor, padding: int, rows: int, columns: int) -> Tensor:
    """[N, I, H, W] -> [N, 2·a + 2, 2·b + 2, I]: what all tiles see."""
    bottom, right = (2 * n + 2 - size - padding for n, size in zip((rows, columns), x.shape[2:], strict=True))
    return F.pad(x, [padding, right, padding, bottom]).permute(0, 2, 3, 1)


def _seen_by(piece: tuple[slice, slice], padded: Tensor) -> Tensor:
    """What some rows of the tiles of some samples see."""
    samples, rows = piece
    return padded[samples, 2 * rows.start : 2 * rows.stop + 2]


def _made_by(piece: tuple[slice, slice], y: Tensor) -> Tensor:
    """What some rows of the tiles of some samples make, in [N, 2·a, 2·b, O]."""
    samples, rows = piece
    return y[samples, 2 * rows.start : 2 * rows.stop]


def _kernel_matrix(like: Tensor) -> Tensor:
    """The transform of a kernel along both axes [16, 9]."""
    along_one = torch.tensor(_KERNEL, dtype=like.dtype, device=like.device)
    return torch.kron(along_one, along_one)


def _transform_kernel(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] -> [16, O, I]."""
    O, I = weight.shape[:2]
    return _kernel_matrix(weight).mm(weight.reshape(O * I, 9).t()).reshape(16, O, I)


def _transform_input(x: Tensor) -> Tensor:
    """[n, 2·a + 2, 2·b + 2, I] -> [16, n·a·b, I]."""
    n, a, b, I = len(x), x.shape[1] // 2 - 1, x.shape[2] // 2 - 1, x.shape[3]
    along_rows, both = x.new_empty(4, n, a, 2 * b + 2, I), x.new_empty(4, 4, n, a, b, I)
    _differences([x[:, i : i + 2 * a - 1 : 2] for i in range(4)], into=list(along_rows))
    _differences([along_rows[:, :, :, i : i + 2 * b - 1 : 2] for i in range(4)], into=[both[:, i] for i in range(4)])
    return both.reshape(16, n * a * b, I)


def _differences(x: list[Tensor], into: list[Tensor]) -> None:
    """The input's transform along one axis."""
    torch.sub(x[0], x[2], out=into[0])
    torch.add(x[1], x[2], out=into[1])
    torch.sub(x[2], x[1], out=into[2])
    torch.sub(x[3], x[1], out=into[3])


def _transform_result(products: Tensor, into: Tensor) -> None:
    """[16, n·a·b, O], which is overwritten -> [n, 2·a, 2·b, O]."""
    n, a, b, O = len(into), into.shape[1] // 2, into.shape[2] // 2, into.shape[3]
    products = products.reshape(4, 4, n, a, b, O)
    _sums(list(products), into=list(products[:2]))
    y = into.unflatten(2, (b, 2)).unflatten(1, (a, 2)).permute(2, 4, 0, 1, 3, 5)  # [2, 2, n, a, b, O], a view
    _sums([products[:2, i] for i in range(4)], into=[y[:, 0], y[:, 1]])


def _sums(m: list[Tensor], into: list[Tensor]) -> None:
    """The result's transform along one axis; ``into`` may be the first two of ``m``."""
    torch.add(m[0], m[1], out=into[0])
    torch.sub(m[1], m[2], out=into[1])
    into[0].add_(m[2])
    into[1].add_(m[3])


def _transform_gradient(dy: Tensor) -> Tensor:
    """[n, 2·a, 2·b, O] -> [16, n·a·b, O]: the transpose of the result's transform."""
    n, a, b, O = len(dy), dy.shape[1] // 2, dy.shape[2] // 2, dy.shape[3]
    along_rows, both = dy.new_empty(2, n, a, 2 * b, O), dy.new_empty(4, 4, n, a, b, O)
    even, odd = dy[:, ::2], dy[:, 1::2]
    torch.add(even, odd, out=along_rows[0])
    torch.sub(even, odd, out=along_rows[1])
    for row, into in zip((even, *along_rows, odd), both, strict=True):
        left, right = row[:, :, ::2], row[:, :, 1::2]
        into[0].copy_(left)
        torch.add(left, right, out=into[1])
        torch.sub(left, right, out=into[2])
        into[3].copy_(right)
    return both.reshape(16, n * a * b, O)
