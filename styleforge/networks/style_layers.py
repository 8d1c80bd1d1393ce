"""Style blocks: the layers of the synthesis network that a style acts on (Karras et al. 2020, Figure 2).

`ModulatedLayer` and `ToRGB` are StyleGAN2's (Figure 2c, 2d); `AdaINLayer` is StyleGAN's (Figure 2b), with instance
norm, pixel norm or their mixture PIN (Tan et al., Eq. 3 to 7).
"""
# Shapes: N batch, I/O input/output channels, W length of w, k kernel size, H W image size.

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from styleforge.networks.config import GeneratorConfig, StyleBlock
from styleforge.networks.layers import SQRT2, FullyConnected, resample_filters, scaled
from styleforge.ops import (
    bias_act,
    conv2d_resample,
    filter2d,
    instance_norm,
    modulated_conv2d,
    pixel_instance_norm,
    pixel_norm,
)

NOISE_MODES = ("random", "const", "none")


class NoiseInput(nn.Module):
    """Noise broadcast "B" of Figure 2: a noise map times a learned strength, initially 0.

    Args:
        size: (height, width) of the features.
        channels: None for one strength per layer (StyleGAN2), else one per feature map (StyleGAN).
    """

    const: Tensor

    def __init__(self, size: tuple[int, int], channels: int | None = None) -> None:
        super().__init__()
        self.register_buffer("const", torch.randn(size))
        self.strength = nn.Parameter(torch.zeros(() if channels is None else (channels, 1, 1)))

    def forward(self, like: Tensor, noise_mode: str, noise: Tensor | None = None) -> Tensor | None:
        """The noise to add to features.

        Args:
            like: Any tensor [N, …] of the features' batch, device and float type.
            noise_mode: ``random``, ``const`` or ``none``.
            noise: A noise map [N or 1, 1, H, W], in place of the mode.

        Returns:
            [N or 1, 1 or C, H, W], or None for no noise.
        """
        if noise is None:
            if noise_mode == "none":
                return None
            if noise_mode == "const":
                noise = self.const[None, None]
            else:
                noise = torch.randn([len(like), 1, *self.const.shape], dtype=like.dtype, device=like.device)
        return noise.to(like.dtype) * self.strength.to(like.dtype)


class ModulatedLayer(nn.Module):
    """Style block of configs B to F: modulate, convolve, demodulate, add noise, bias, activate (Figure 2d).

    Args:
        config: The generator's config; its style block is ``demodulation`` or ``none``.
        in_channels: Channels I of the input.
        out_channels: Channels O of the output.
        size: (height, width) of the output.
        up: Factor of enlargement.
    """

    f: Tensor | None

    def __init__(
        self, config: GeneratorConfig, in_channels: int, out_channels: int, size: tuple[int, int], *, up: int = 1
    ) -> None:
        super().__init__()
        self.up, self.clamp = up, config.conv_clamp
        self.demodulate = config.style_block == "demodulation"
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0) if config.use_styles else None
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.weight_gain = 1 / math.sqrt(in_channels * 9)
        self.noise = NoiseInput(size) if config.use_noise else None
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("f", resample_filters("stylegan2", config.blur)[0] if up > 1 else None, persistent=False)

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "random", noise: Tensor | None = None, gain: float = 1.0
    ) -> Tensor:
        """X [N, I, H/up, W/up], w [N, W] -> [N, O, H, W]."""
        styles = w.new_ones(x.shape[:2]) if self.affine is None else self.affine(w)  # [N, I]
        return modulated_conv2d(
            x,
            self.weight * self.weight_gain,
            styles,
            demodulate=self.demodulate,
            up=self.up,
            resample_filter=self.f,
            noise=None if self.noise is None else self.noise(x, noise_mode, noise),
            bias=self.bias,
            act="lrelu",
            gain=SQRT2 * gain,
            clamp=scaled(self.clamp, gain),
        )  # [N, O, H, W]


class ToRGB(nn.Module):
    """Output layer: a 1×1 convolution to image channels, modulated but not demodulated (Appendix B).

    Config A has it without modulation: there, and without styles, w has no effect.

    Args:
        config: The generator's config.
        in_channels: Channels I of the features.
    """

    def __init__(self, config: GeneratorConfig, in_channels: int) -> None:
        super().__init__()
        modulated = config.use_styles and config.convention == "stylegan2"
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0) if modulated else None
        self.weight = nn.Parameter(torch.randn(config.img_channels, in_channels, 1, 1))
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.clamp = config.conv_clamp

    def forward(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """X [N, I, H, W], w [N, W] where it is modulated -> [N, C, H, W]."""
        weight = self.weight * self.weight_gain
        if self.affine is None:
            return bias_act(conv2d_resample(x, weight.to(x.dtype)), self.bias, clamp=self.clamp, inplace=True)
        assert w is not None
        return modulated_conv2d(x, weight, self.affine(w), demodulate=False, bias=self.bias, clamp=self.clamp)


class StyleNorm(nn.Module):
    """Normalization and style of config A: norm(x)·(s0 + 1) + s1, [s0, s1] an affine of w (AdaIN, Figure 2b).

    Args:
        config: The generator's config; its style block chooses the normalization.
        channels: Channels C of the features.
    """

    def __init__(self, config: GeneratorConfig, channels: int) -> None:
        super().__init__()
        self.kind: StyleBlock = config.style_block
        self.rho = nn.Parameter(torch.zeros(channels)) if self.kind == "pixel_instance" else None
        self.affine = FullyConnected(config.w_dim, 2 * channels) if config.use_styles else None

    def normalize(self, x: Tensor) -> Tensor:
        """Instance norm, pixel norm or PIN of x [N, C, H, W]."""
        if self.rho is not None:
            return pixel_instance_norm(x, self.rho)
        return pixel_norm(x) if self.kind == "pixel" else instance_norm(x)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """X [N, C, H, W], w [N, W] -> [N, C, H, W]."""
        x = self.normalize(x)
        if self.affine is None:
            return x
        scale, shift = self.affine(w).to(x.dtype)[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1] each
        return torch.addcmul(shift, x, scale + 1)

    @torch.no_grad()
    def clip_rho(self) -> None:
        """Brings rho back into [0, 1] (Tan et al.: "by clipping"); the training loop calls it after each step."""
        if self.rho is not None:
            self.rho.clamp_(0, 1)


class AdaINEpilogue(nn.Module):
    """What follows each convolution of config A: noise, bias, activation, normalization, style (Figure 2b)."""

    def __init__(self, config: GeneratorConfig, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.noise = NoiseInput(size, channels) if config.use_noise else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.norm = StyleNorm(config, channels)
        self.clamp = config.conv_clamp

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "random", noise: Tensor | None = None, gain: float = 1.0
    ) -> Tensor:
        """X [N, C, H, W], w [N, W] -> [N, C, H, W]."""
        added = None if self.noise is None else self.noise(x, noise_mode, noise)
        x = bias_act(x, self.bias, noise=added, act="lrelu", gain=1, clamp=self.clamp)
        x = self.norm(x, w)
        return x if gain == 1 else x * gain


class AdaINLayer(nn.Module):
    """Style block of config A: convolve, with a blur after enlarging, then `AdaINEpilogue` (Figure 2b).

    Args:
        config: The generator's config; its style block is ``instance``, ``pixel`` or ``pixel_instance``.
        in_channels: Channels I of the input.
        out_channels: Channels O of the output.
        size: (height, width) of the output.
        up: Factor of enlargement.
    """

    f: Tensor | None
    f_blur: Tensor | None

    def __init__(
        self, config: GeneratorConfig, in_channels: int, out_channels: int, size: tuple[int, int], *, up: int = 1
    ) -> None:
        super().__init__()
        self.up = up
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.weight_gain = SQRT2 / math.sqrt(in_channels * 9)
        f, f_blur = resample_filters("stylegan", config.blur) if up > 1 else (None, None)
        self.register_buffer("f", f, persistent=False)
        self.register_buffer("f_blur", f_blur, persistent=False)
        self.epilogue = AdaINEpilogue(config, out_channels, size)

    @property
    def noise(self) -> NoiseInput | None:
        """The layer's noise input, where `ModulatedLayer` has it."""
        return self.epilogue.noise

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "random", noise: Tensor | None = None, gain: float = 1.0
    ) -> Tensor:
        """X [N, I, H/up, W/up], w [N, W] -> [N, O, H, W]."""
        x = conv2d_resample(x, self.weight.to(x.dtype) * self.weight_gain, f=self.f, up=self.up)  # [N, O, H, W]
        if self.f_blur is not None:
            x = filter2d(x, self.f_blur)
        y: Tensor = self.epilogue(x, w, noise_mode, noise, gain)
        return y
