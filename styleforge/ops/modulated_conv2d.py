"""Weight modulation and demodulation (Karras et al. 2020, Section 2.2 and Appendix B)."""
# Shapes: N batch, O/I output/input channels, k kernel size, H W image size.

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from styleforge.ops.bias_act import bias_act
from styleforge.ops.conv2d_resample import conv2d_resample
from styleforge.ops.shapes import require_shape

ModulatedImpl = Literal["factored", "grouped"]


def demodulation_coefficients(weight: Tensor, styles: Tensor, eps: float = 1e-8) -> Tensor:
    """The factors of Eq. 3 that bring every output feature map back to unit standard deviation.

    Args:
        weight: [O, I, k, k].
        styles: [N, I].
        eps: Added to the sum of squares.

    Returns:
        [N, O]: 1 / sqrt(sum over I, k, k of (s_i · w_oi)² + eps).
    """
    power = weight.square().sum([2, 3])  # [O, I]
    return (styles.to(power.dtype).square() @ power.t() + eps).rsqrt()


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    up: int = 1,
    resample_filter: Tensor | None = None,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    eps: float = 1e-8,
    impl: ModulatedImpl = "factored",
) -> Tensor:
    """Convolves each sample with weights that its own style has scaled (Eq. 1) and, if wanted, normalised (Eq. 3).

    Noise, bias and activation follow, since Eq. 3's factors go through the features in one pass with them.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k], shared by the batch, the equalized learning rate's factor included.
        styles: [N, I]: the scale s_i of each input feature map.
        demodulate: Whether to apply Eq. 3.
        up: Factor of enlargement.
        resample_filter: Low-pass filter [f, f] of sum 1, needed when ``up`` is above 1.
        noise: [N or 1, 1, H·up, W·up], added to the result; None for none.
        bias: [O], added after the noise; None for none.
        act: Activation of the result; see `bias_act`, as for ``gain`` and ``clamp``.
        gain: Factor on the activation.
        clamp: Limit on the result.
        eps: The epsilon of Eq. 3.
        impl: ``grouped`` makes the weights of each sample and convolves them in one grouped convolution
            (Appendix B). ``factored`` scales the input by s, runs one convolution for the whole batch, and scales
            the output by Eq. 3's factors: the same function, since s acts on input and Eq. 3 on output channels. A
            1×1 convolution is a matrix product of each sample there.

    Returns:
        [N, O, H·up, W·up].

    Raises:
        ValueError: Shapes that do not fit each other, or an unknown ``impl``.
    """
    k = weight.shape[-1]
    require_shape("weight", weight, [None, None, k, k], "convolution weights are [O, I, k, k]")
    O, I, _, _ = weight.shape
    require_shape("x", x, [None, I, None, None], f"the weight takes {I} input channels")
    N, _, H, W = x.shape
    require_shape("styles", styles, [N, I], "give one scale per sample and input channel")
    if demodulate and x.dtype == torch.float16:
        # Demodulation undoes any factor on the styles: at most 1 keeps the features within half precision's range.
        styles = styles / styles.abs().amax(1, keepdim=True).clamp(min=eps)
    if impl not in get_args(ModulatedImpl):
        raise ValueError(f"impl: got {impl!r}, expected 'factored' or 'grouped'; choose one of these")
    if k == 1 and up == 1 and impl == "factored":
        # The few weights are scaled, and the many features only read: by a matrix product for each sample. Pixels come
        # before channels, as they lie in memory, so that gradients lie so, too.
        kernels = _kernels_of_samples(weight, styles, demodulate, eps).to(x.dtype)[:, :, :, 0, 0]  # [N, O, I]
        x = (x.permute(0, 2, 3, 1).flatten(1, 2) @ kernels.transpose(1, 2)).reshape(N, H, W, O).permute(0, 3, 1, 2)
        return bias_act(x, bias, noise=noise, act=act, gain=gain, clamp=clamp)
    if impl == "factored" or N == 0:  # no convolution has 0 groups
        # Eq. 3 is taken in the precision of weights and styles; only the features may be in a lower one.
        scale = demodulation_coefficients(weight, styles, eps) if demodulate else None
        x = x * styles.to(x.dtype)[:, :, None, None]
        x = conv2d_resample(x, weight.to(x.dtype), f=resample_filter, up=up)  # [N, O, H·up, W·up]
        return bias_act(x, bias, scale=scale, noise=noise, act=act, gain=gain, clamp=clamp, inplace=True)
    kernels = _kernels_of_samples(weight, styles, demodulate, eps).to(x.dtype).reshape(N * O, I, k, k)
    x = x.reshape(1, N * I, H, W)  # one grouped convolution does the work of N separate ones
    x = conv2d_resample(x, kernels, f=resample_filter, up=up, groups=N)
    x = x.reshape(N, O, H * up, W * up)
    return bias_act(x, bias, noise=noise, act=act, gain=gain, clamp=clamp)


def _kernels_of_samples(weight: Tensor, styles: Tensor, demodulate: bool, eps: float) -> Tensor:
    """Weight [O, I, k, k] as each sample's styles [N, I] scale (Eq. 1) and normalise it (Eq. 3): [N, O, I, k, k]."""
    kernels = weight * styles[:, None, :, None, None]
    if demodulate:
        kernels = kernels * (kernels.square().sum([2, 3, 4], keepdim=True) + eps).rsqrt()
    return kernels
