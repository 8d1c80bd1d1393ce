"""Normalizations: instance, pixel, their mixture PIN, and the statistics of a minibatch.

Statistics are taken in float32 at least, so that half-precision activations neither overflow nor lose digits.
"""
# Shapes: N batch, C channels, H W image size, G group size, F statistics channels.

from __future__ import annotations

import torch
from torch import Tensor

from styleforge.ops.forward_mode import has_tangent
from styleforge.ops.kernels import Impl, uses_triton
from styleforge.ops.shapes import require_shape


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def instance_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Brings every feature map to zero mean and unit variance (Tan et al., Eq. 4 to 6; the "AdaIN" of StyleGAN).

    A bright region of area fraction alpha comes out with mean magnitude about sqrt((1 - alpha) / alpha), however
    bright it was: the cause of circular artifacts (Tan et al., Eq. 2).

    Args:
        x: [N, C, H, W].
        eps: Added to the biased variance.

    Returns:
        The shape and dtype of ``x``.
    """
    dtype = x.dtype
    x = x.to(_accumulation_dtype(x))
    x = x - x.mean([2, 3], keepdim=True)
    return (x * (x.square().mean([2, 3], keepdim=True) + eps).rsqrt()).to(dtype)


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Divides the vector of channels at every pixel by its root mean square (Tan et al., Eq. 3).

    Args:
        x: [N, C, H, W].
        eps: Added to the mean square.

    Returns:
        The shape and dtype of ``x``.
    """
    return normalize_2nd_moment(x, eps)


def normalize_2nd_moment(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Divides x [N, C, …] by its root mean square over dimension 1; z and label embeddings go through it."""
    dtype = x.dtype
    x = x.to(_accumulation_dtype(x))
    return (x * (x.square().mean(1, keepdim=True) + eps).rsqrt()).to(dtype)


def pixel_instance_norm(x: Tensor, rho: Tensor, eps: float = 1e-8) -> Tensor:
    """Mixes pixel and instance normalization per channel: rho·PN(x) + (1 - rho)·IN(x) (Tan et al., Eq. 7).

    Args:
        x: [N, C, H, W].
        rho: [C], clipped to [0, 1]: 0 is instance norm, 1 is pixel norm.
        eps: Added to the variance and to the mean square.

    Returns:
        The shape and dtype of ``x``.

    Raises:
        ValueError: ``rho`` has another length than ``x`` has channels.
    """
    require_shape("rho", rho, [x.shape[1]], "give one mixing weight per channel")
    # At 0, where training starts, clamp alone may have no gradient (it depends on the version of PyTorch).
    mix = torch.where((rho >= 0) & (rho <= 1), rho, rho.clamp(0, 1)).to(x.dtype)[:, None, None]
    return torch.lerp(instance_norm(x, eps), pixel_norm(x, eps), mix.expand_as(x))


def minibatch_stddev(
    x: Tensor, group_size: int = 4, num_channels: int = 1, eps: float = 1e-8, *, impl: Impl = "auto"
) -> Tensor:
    """Appends the standard deviation over groups of samples as feature maps (Karras et al. 2018, Section 3).

    Sample n belongs to the group of n modulo (N / G), as in the official releases.

    Args:
        x: [N, C, H, W].
        group_size: Wanted number of samples per group G; the largest number up to it that divides N is taken.
        num_channels: Number F of statistics, each over C / F channels.
        eps: Added to the variance.
        impl: ``torch`` is PyTorch's own operations, ``triton`` a kernel, ``auto`` what suits the device.

    Returns:
        [N, C + F, H, W].

    Raises:
        ValueError: The batch is empty.
    """
    N, C, H, W = x.shape
    if N == 0:
        raise ValueError("x: got an empty batch, expected at least one sample to take statistics of")
    G = next(size for size in range(min(group_size, N), 0, -1) if N % size == 0)
    F = num_channels
    if not has_tangent(x) and uses_triton(x, impl):
        from styleforge.ops.kernels.gpu import minibatch_stddev as kernel

        return kernel.minibatch_stddev(x, G, F, eps)
    y = x.to(_accumulation_dtype(x)).reshape(G, N // G, F, C // F, H, W)
    y = y - y.mean(0)  # [G, n, F, c, H, W]  centred over the group
    y = (y.square().mean(0) + eps).sqrt()  # [n, F, c, H, W]  standard deviation over the group
    y = y.mean([2, 3, 4])  # [n, F]  averaged over channels and pixels
    y = y.to(x.dtype).repeat(G, 1)[:, :, None, None].expand(N, F, H, W)
    return torch.cat([x, y], dim=1)
