"""Layers that both networks are made of: equalized learning rate, in the arithmetic of StyleGAN or StyleGAN2.

Equalized learning rate (Karras et al. 2018, Section 4.1): weights are drawn from N(0, 1) and multiplied at run time
by gain / sqrt(fan-in). StyleGAN2 multiplies the activation by sqrt(2) after the bias; StyleGAN has the sqrt(2) in
that run-time gain instead, so that the bias goes without.
"""
# Shapes: N batch, O/I output/input features or channels, k kernel size, H W image size.

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styleforge.networks.config import Convention
from styleforge.ops import bias_act, conv2d_resample, filter2d, make_filter

SQRT2 = math.sqrt(2)
Activation = Literal["linear", "lrelu"]


def equalized_gains(convention: Convention, activation: Activation) -> tuple[float, float]:
    """Where the variance-keeping gain of an activation sits: (factor on the weights, factor after the activation)."""
    gain = SQRT2 if activation == "lrelu" else 1.0
    return (gain, 1.0) if convention == "stylegan" else (1.0, gain)


def resample_filters(convention: Convention, blur: bool) -> tuple[Tensor, Tensor | None]:
    """The filter of `conv2d_resample`, and the blur that StyleGAN has beside it.

    Nearest neighbour ×2 with StyleGAN's blur [1, 2, 1] is StyleGAN2's [1, 3, 3, 1], but for the image's border.
    """
    if convention == "stylegan":
        return make_filter([1, 1]), make_filter([1, 2, 1]) if blur else None
    return make_filter([1, 3, 3, 1] if blur else [1, 1]), None


class FullyConnected(nn.Module):
    """Dense layer with equalized learning rate (Karras et al. 2020, Appendix B).

    Args:
        in_features: Length I of the input.
        out_features: Length O of the output.
        activation: ``linear`` or ``lrelu``.
        convention: Where the activation's gain sits.
        bias: Whether there is a bias.
        bias_init: Its initial value.
        lr_multiplier: Learning rate m of this layer relative to the rest: weights are drawn from N(0, 1) / m and
            multiplied by m, the bias is stored divided by m.
        weight_gain: A further run-time factor on the weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: Activation = "linear",
        convention: Convention = "stylegan2",
        bias: bool = True,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        weight_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier)) if bias else None
        gain, self.act_gain = equalized_gains(convention, activation)
        self.weight_gain = gain * weight_gain * lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O]."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.bias_gain).to(x.dtype)
        return bias_act(F.linear(x, weight, bias), act=self.activation, gain=self.act_gain, inplace=True)


class Conv2d(nn.Module):
    """Convolution with equalized learning rate, optional resampling, bias and activation.

    Args:
        in_channels: Channels I of the input.
        out_channels: Channels O of the output.
        kernel_size: Odd kernel size k.
        activation: ``linear`` or ``lrelu``.
        convention: Where the activation's gain sits and how resampling is filtered.
        bias: Whether there is a bias.
        up: Factor of enlargement.
        down: Factor of shrinking.
        blur: Whether resampling is low-pass filtered.
        clamp: Limit on the output; None for no limit.
    """

    f: Tensor | None
    f_blur: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        activation: Activation = "linear",
        convention: Convention = "stylegan2",
        bias: bool = True,
        up: int = 1,
        down: int = 1,
        blur: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.up, self.down, self.clamp = activation, up, down, clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        gain, self.act_gain = equalized_gains(convention, activation)
        self.weight_gain = gain / math.sqrt(in_channels * kernel_size**2)
        f, f_blur = resample_filters(convention, blur) if up > 1 or down > 1 else (None, None)
        self.register_buffer("f", f, persistent=False)
        self.register_buffer("f_blur", f_blur, persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[N, I, H, W] -> [N, O, H·up/down, W·up/down], multiplied by ``gain``."""
        if self.f_blur is not None and self.down > 1:
            x = filter2d(x, self.f_blur)
        weight = (self.weight * self.weight_gain).to(x.dtype)
        x = conv2d_resample(x, weight, f=self.f, up=self.up, down=self.down)  # [N, O, H·up/down, W·up/down]
        if self.f_blur is not None and self.up > 1:
            x = filter2d(x, self.f_blur)
        clamp = scaled(self.clamp, gain)
        return bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp, inplace=True)


def scaled(clamp: float | None, gain: float) -> float | None:
    """A limit that scales with the gain, or None."""
    return None if clamp is None else clamp * gain
