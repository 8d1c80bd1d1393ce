"""Synthesis network g: ws -> image (Karras et al. 2020, Figures 2 and 7)."""
# Shapes: N batch, L number of ws, W length of w, C channels, H W image size.

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from styleforge.networks.config import GeneratorConfig
from styleforge.networks.growing import split_lod
from styleforge.networks.layers import SQRT2, Conv2d, FullyConnected, resample_filters
from styleforge.networks.recompute import recomputes, run_block
from styleforge.networks.sizes import block_name
from styleforge.networks.style_layers import NOISE_MODES, AdaINEpilogue, AdaINLayer, ModulatedLayer, NoiseInput, ToRGB
from styleforge.ops import nearest_upsample2d, upsample2d
from styleforge.ops.shapes import assert_shape, require_shape

StyleLayer = AdaINEpilogue | AdaINLayer | ModulatedLayer


class SynthesisInput(nn.Module):
    """Where synthesis starts: a learned constant, or the traditional input, w through a dense layer.

    StyleGAN2's constant is drawn from N(0, 1); StyleGAN's is all ones.

    Args:
        config: The generator's config.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.shape = (config.channels[0], *config.plan.base)
        stylegan = config.convention == "stylegan"
        self.const: nn.Parameter | None = None
        self.dense: FullyConnected | None = None
        if config.constant_input:
            self.const = nn.Parameter(torch.ones(self.shape) if stylegan else torch.randn(self.shape))
        else:
            # StyleGAN's release keeps progressive GAN's gain of sqrt(2)/4 here; normalization follows.
            gain = SQRT2 / 4 if stylegan else 1.0
            self.dense = FullyConnected(config.w_dim, math.prod(self.shape), bias=False, weight_gain=gain)

    def forward(self, w: Tensor) -> Tensor:
        """W [N, W] -> [N, C, H, W] of the base grid."""
        if self.dense is not None:
            x: Tensor = self.dense(w).reshape(-1, *self.shape)
        else:
            assert self.const is not None
            x = self.const.to(w.dtype).expand(len(w), *self.shape)
        return x.contiguous(memory_format=torch.channels_last)  # the faster layout; what follows keeps it


class SynthesisBlock(nn.Module):
    """The layers at one resolution.

    Args:
        config: The generator's config.
        index: Number of the block, 0 for the base grid.
    """

    f: Tensor | None

    def __init__(self, config: GeneratorConfig, index: int) -> None:
        super().__init__()
        self.index, self.architecture = index, config.architecture
        self.size = config.plan.sizes[index]
        is_last = index == config.plan.doublings
        channels = config.channels[index]
        layer: type[AdaINLayer | ModulatedLayer] = AdaINLayer if config.convention == "stylegan" else ModulatedLayer
        self.input = SynthesisInput(config) if index == 0 else None
        self.conv0: StyleLayer | None = None
        if index > 0:
            self.conv0 = layer(config, config.channels[index - 1], channels, self.size, up=2)
        elif config.convention == "stylegan":
            self.conv0 = AdaINEpilogue(config, channels, self.size)  # Figure 2b: on the constant itself
        self.conv1 = layer(config, channels, channels, self.size)
        self.skip: Conv2d | None = None
        if index > 0 and config.architecture == "resnet":
            self.skip = Conv2d(config.channels[index - 1], channels, 1, bias=False, up=2, blur=config.blur)
        has_rgb = is_last or config.architecture == "skip" or config.progressive
        self.torgb = ToRGB(config, channels) if has_rgb else None
        sums_rgb = index > 0 and config.architecture == "skip"
        self.register_buffer("f", resample_filters("stylegan2", config.blur)[0] if sums_rgb else None, persistent=False)

    @property
    def style_layers(self) -> list[StyleLayer]:
        """The layers that take one w each, in order."""
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]

    def forward(
        self,
        x: Tensor | None,
        ws: Sequence[Tensor],
        noise_mode: str = "random",
        noise: Sequence[Tensor | None] = (None, None),
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The features of this resolution.

        Args:
            x: [N, C, H/2, W/2]; None for the first block.
            ws: w [N, W] of each of `style_layers`.
            noise_mode: ``random``, ``const`` or ``none``.
            noise: Noise of each of `style_layers`, or None.
            dtype: Float type of the features; None keeps that of ``x`` or ``ws``.

        Returns:
            [N, C, H, W].
        """
        y = None
        if self.input is not None:
            x = self.input(ws[0])
        assert x is not None
        x = x.to(dtype or x.dtype)
        gain = 1.0
        if self.skip is not None:
            gain = 1 / SQRT2  # the sum of two paths doubles the variance (footnote 3)
            y = self.skip(x, gain=gain)
        if self.conv0 is not None:
            x = self.conv0(x, ws[0], noise_mode, noise[0])
        x = self.conv1(x, ws[-1], noise_mode, noise[len(self.style_layers) - 1], gain=gain)  # [N, C, H, W]
        return x if y is None else y + x


class SynthesisNetwork(nn.Module):
    """Makes images from ws, block by block: ``b4``, ``b8``, … up to the image's size.

    Args:
        config: The generator's config.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        """Float type of the features (mixed precision); None is that of ws. Styles and RGB keep the type of ws."""
        self.checkpoint_resolution: int | None = None
        """In training, blocks of this nominal resolution and above keep no activations for the backward pass but
        compute them again; None keeps all. Results are the same."""
        for i, size in enumerate(config.plan.sizes):
            self.add_module(block_name(size), SynthesisBlock(config, i))

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """The blocks, from the base grid to the image."""
        return [block for block in self.children() if isinstance(block, SynthesisBlock)]

    def active_blocks(self, lod: float = 0.0) -> list[SynthesisBlock]:
        """The blocks that take part at a level of detail."""
        halvings, _ = split_lod(lod, self.config.plan.doublings, self.config.progressive)
        return self.blocks[: self.config.plan.doublings - halvings + 1]

    def noise_inputs(self, lod: float = 0.0) -> list[NoiseInput]:
        """The noise inputs at a level of detail, in the order in which `forward` takes ``noise``."""
        layers = (layer for block in self.active_blocks(lod) for layer in block.style_layers)
        return [layer.noise for layer in layers if layer.noise is not None]

    def forward(
        self, ws: Tensor, noise_mode: str = "random", lod: float = 0.0, noise: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Makes images.

        Args:
            ws: [N, L, W]: one w per layer; a block's tRGB takes the w of the next block's first layer.
            noise_mode: ``random`` draws noise, ``const`` takes the fixed maps, ``none`` leaves it out.
            lod: Level of detail, for progressive networks: 0 is full resolution, 1 one halving, and so on; fractions
                fade between the two RGB outputs. The image keeps its full size.
            noise: Noise maps [N or 1, 1, h, w] in the order of `noise_inputs`, in place of ``noise_mode``.

        Returns:
            img [N, C, H, W], about in [-1, 1].

        Raises:
            ValueError: A shape, a noise mode or a level of detail that this network cannot take.
        """
        config = self.config
        require_shape("ws", ws, [None, config.num_ws, config.w_dim], "G.mapping makes ws that fit")
        if noise_mode not in NOISE_MODES:
            raise ValueError(
                f"noise_mode: got {noise_mode!r}, expected one of {', '.join(NOISE_MODES)}; choose one of these"
            )
        halvings, fade = split_lod(lod, config.plan.doublings, config.progressive)
        blocks = self.active_blocks(lod)
        maps = self._assign_noise(noise, lod)

        # Features: every block makes x at its resolution from the x before.
        features: list[Tensor] = []
        w_rgb: list[Tensor | None] = []
        first = 0  # the block's first w
        x: Tensor | None = None
        for block, block_maps in zip(blocks, maps, strict=True):
            end = first + len(block.style_layers)
            x = run_block(
                block,
                *(x, ws[:, first:end].unbind(1), noise_mode, block_maps, self.compute_dtype),
                recompute=recomputes(self, config.plan.nominal[block.index]),
            )  # [N, channels, h, w]
            assert_shape(x, [len(ws), config.channels[block.index], *block.size])
            features.append(x)
            w_rgb.append(ws[:, end] if end < config.num_ws else None)
            first = end

        # RGB: the sum over resolutions for skip; else the last resolution, faded with the one before.
        def rgb(i: int) -> Tensor:
            torgb = blocks[i].torgb
            assert torgb is not None
            y: Tensor = torgb(features[i], w_rgb[i])
            return y.to(ws.dtype)

        top = len(blocks) - 1
        if config.architecture == "skip":
            img = rgb(0)  # [N, C, h, w]
            for i in range(1, top + 1):
                f = blocks[i].f
                assert f is not None
                img = upsample2d(img, f) + rgb(i)  # [N, C, 2h, 2w]
        else:
            img = rgb(top)
        if fade > 0:
            img = torch.lerp(img, nearest_upsample2d(rgb(top - 1), 2), fade)
        return nearest_upsample2d(img, 2**halvings)  # [N, C, H, W]

    def _assign_noise(self, noise: Sequence[Tensor] | None, lod: float) -> list[list[Tensor | None]]:
        """Deals given noise maps out to the blocks and their layers; None where there is none."""
        inputs = self.noise_inputs(lod)
        if noise is None:
            given: Iterator[Tensor | None] = iter([None] * len(inputs))
        else:
            if len(noise) != len(inputs):
                raise ValueError(f"noise: got {len(noise)} maps, expected {len(inputs)}, one per noise input")
            for i, (noise_map, noise_input) in enumerate(zip(noise, inputs, strict=True)):
                size = noise_input.const.shape
                require_shape(
                    f"noise[{i}]", noise_map, [None, 1, *size], "take the sizes of G.synthesis.noise_inputs()"
                )
            given = iter(noise)
        return [
            [next(given) if layer.noise is not None else None for layer in block.style_layers]
            for block in self.active_blocks(lod)
        ]
