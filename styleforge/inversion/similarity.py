"""How alike two pictures are, pixel by pixel: PSNR and SSIM (Wang et al. 2004)."""
# Shapes: N batch, C image channels, H W image size.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.ops.shapes import require_shape

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of SSIM's Gaussian window, in pixels."""
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""SSIM's constants for pixels from 0 to 255."""


def psnr(images_uint8: Tensor, references_uint8: Tensor) -> Tensor:
    """Peak signal-to-noise ratios in dB; infinity for the same picture.

    Args:
        images_uint8: [N, C, H, W] uint8.
        references_uint8: As many, of the same shape.

    Returns:
        [N] float64.

    Raises:
        ValueError: The shapes differ.
    """
    require_shape("references", references_uint8, list(images_uint8.shape), "compare as many of the same size")
    error = (images_uint8.double() - references_uint8.double()).square().mean([1, 2, 3])
    return 10 * (255**2 / error).log10()


def ssim(images_uint8: Tensor, references_uint8: Tensor) -> Tensor:
    """Structural similarities (Wang et al. 2004, Eq. 13), averaged over channels and windows that fit inside.

    Args:
        images_uint8: [N, C, H, W] uint8. If a side is shorter than 11 pixels, the window is the shorter side.
        references_uint8: As many, of the same shape.

    Returns:
        [N] float64 up to 1, which means the same picture.

    Raises:
        ValueError: The shapes differ.
    """
    require_shape("references", references_uint8, list(images_uint8.shape), "compare as many of the same size")
    N, C, H, W = images_uint8.shape
    x = images_uint8.double().reshape(N * C, 1, H, W)
    y = references_uint8.double().reshape(N * C, 1, H, W)
    mean_x, mean_y = _window_means(x), _window_means(y)
    variance_x = _window_means(x * x) - mean_x.square()
    variance_y = _window_means(y * y) - mean_y.square()
    covariance = _window_means(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    similarity = similarity / ((mean_x.square() + mean_y.square() + C1) * (variance_x + variance_y + C2))
    return similarity.reshape(N, -1).mean(1)


def _window_means(x: Tensor) -> Tensor:
    """Gaussian means over all windows that fit inside x [N, 1, H, W]."""
    size = min(WINDOW, *x.shape[2:])
    offsets = torch.arange(size, dtype=x.dtype) - (size - 1) / 2
    window = (-offsets.square() / (2 * SIGMA**2)).exp()
    window = (window / window.sum()).to(x.device)
    return F.conv2d(F.conv2d(x, window.reshape(1, 1, -1, 1)), window.reshape(1, 1, 1, -1))
