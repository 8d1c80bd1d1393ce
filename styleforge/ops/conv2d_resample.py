"""Convolution with filtered up- or down-sampling (Karras et al. 2020, Figure 7 and Appendix B).

Up: a transposed convolution with stride 2, then the FIR filter with gain 4. Down: the FIR filter, then a strided
convolution. With the filter [1, 1] these are the resamplings of StyleGAN: nearest neighbour ×2 before a
convolution, and a 2×2 mean after one.
"""
# Shapes: N batch, O/I output/input channels, k kernel size, f filter size, H W image size.

from __future__ import annotations

from torch import Tensor

from styleforge.ops.conv2d import conv2d, conv_transpose2d
from styleforge.ops.upfirdn2d import downsample2d, upfirdn2d, upsample2d


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    *,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    groups: int = 1,
) -> Tensor:
    """Convolves an image, with zeros outside, and enlarges or shrinks it by a factor.

    Args:
        x: [N, I, H, W].
        weight: [O, I / groups, k, k], k odd. Without up-sampling it correlates, as everywhere in PyTorch; with
            it, it convolves (the kernel is turned by 180°), as in the official PyTorch release.
        f: Low-pass filter [f, f] of sum 1; needed when ``up`` or ``down`` is above 1.
        up: Factor of enlargement.
        down: Factor of shrinking; not together with ``up``.
        groups: Groups of the convolution.

    Returns:
        [N, O, H·up/down, W·up/down].
    """
    O, I, k, _ = weight.shape
    assert up == 1 or down == 1
    if up == 1 and down == 1:
        return conv2d(x, weight, padding=k // 2, groups=groups)
    assert f is not None
    pad, taps = k // 2, f.shape[-1]
    if k == 1:  # A 1×1 convolution commutes with the filter: do each at the smaller size.
        if up > 1:
            return upsample2d(conv2d(x, weight, groups=groups), f, up=up)
        return conv2d(downsample2d(x, f, down=down), weight, groups=groups)
    if up > 1:
        # conv_transpose2d wants [groups·I, O / groups, k, k].
        weight = weight.reshape(groups, O // groups, I, k, k).transpose(1, 2).reshape(groups * I, O // groups, k, k)
        x = conv_transpose2d(x, weight, stride=up, groups=groups)  # [N, O, (H-1)·up + k, (W-1)·up + k]
        before, after = pad + (taps + up - 1) // 2 - (k - 1), pad + (taps - up) // 2 - (k - up)
        return upfirdn2d(x, f, padding=(before, after, before, after), gain=up**2)
    before, after = pad + (taps - down + 1) // 2, pad + (taps - down) // 2
    x = upfirdn2d(x, f, padding=(before, after, before, after))
    return conv2d(x, weight, stride=down, groups=groups)
