"""Discriminator: image -> logit (Karras et al. 2020, Figure 7; the end after Karras et al. 2018)."""
# Shapes: N batch, C image channels or length of a label, H W image size.

from __future__ import annotations

import collections
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from styleforge.networks.config import DiscriminatorConfig
from styleforge.networks.growing import split_lod
from styleforge.networks.layers import SQRT2, Conv2d, FullyConnected, resample_filters
from styleforge.networks.mapping import LabelMapping, require_labels
from styleforge.networks.recompute import recomputes, run_block
from styleforge.networks.sizes import block_name
from styleforge.ops import box_downsample2d, downsample2d, minibatch_stddev
from styleforge.ops.shapes import assert_shape, require_shape


def _from_rgb(config: DiscriminatorConfig, channels: int, clamp: float | None) -> Conv2d:
    """1×1 convolution from image channels to features."""
    return Conv2d(
        config.img_channels,
        channels,
        1,
        activation="lrelu",
        convention=config.convention,
        clamp=clamp,
    )


class DiscriminatorBlock(nn.Module):
    """The layers at one resolution; the result has half of it.

    Args:
        config: The discriminator's config.
        index: Number of the block, from 1; 0 is the base grid, which `DiscriminatorEpilogue` takes.
    """

    def __init__(self, config: DiscriminatorConfig, index: int) -> None:
        super().__init__()
        self.index, self.size = index, config.plan.sizes[index]
        channels, out_channels = config.channels[index], config.channels[index - 1]
        is_first = index == config.plan.doublings
        has_rgb = is_first or config.architecture == "skip" or config.progressive
        self.fromrgb = _from_rgb(config, channels, config.conv_clamp) if has_rgb else None
        self.conv0 = Conv2d(
            channels, channels, 3, activation="lrelu", convention=config.convention, clamp=config.conv_clamp
        )
        self.conv1 = Conv2d(
            channels,
            out_channels,
            3,
            activation="lrelu",
            convention=config.convention,
            down=2,
            blur=config.blur,
            clamp=config.conv_clamp,
        )
        self.skip: Conv2d | None = None
        if config.architecture == "resnet":
            self.skip = Conv2d(channels, out_channels, 1, bias=False, down=2, blur=config.blur)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, h, w] -> [N, channels of the next block, h/2, w/2]."""
        if self.skip is None:
            y: Tensor = self.conv1(self.conv0(x))
            return y
        gain = 1 / SQRT2  # the sum of two paths doubles the variance (footnote 3)
        y = self.skip(x, gain=gain)
        return y + self.conv1(self.conv0(x), gain=gain)


class DiscriminatorEpilogue(nn.Module):
    """The end, at the base grid: minibatch standard deviation, convolution, two dense layers.

    Args:
        config: The discriminator's config.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config, self.size = config, config.plan.base
        channels = config.channels[0]
        features = config.head_features or channels
        has_rgb = config.architecture == "skip" or config.progressive
        self.fromrgb = _from_rgb(config, channels, None) if has_rgb else None  # unclamped, as the PyTorch release's
        self.conv = Conv2d(
            channels + config.mbstd_channels,
            channels,
            3,
            activation="lrelu",
            convention=config.convention,
            clamp=config.conv_clamp,
        )
        self.fc = FullyConnected(
            channels * math.prod(self.size), features, activation="lrelu", convention=config.convention
        )
        self.mapping: LabelMapping | None = None
        num_logits = max(config.c_dim, 1)
        if config.c_dim and config.label_mode == "embedding":
            num_logits = config.mapping_features or features
            self.mapping = LabelMapping(config.c_dim, num_logits, config.mapping_layers, convention=config.convention)
        self.out = FullyConnected(features, num_logits)

    def features(self, x: Tensor, mbstd_group: int, num_batches: int = 1) -> Tensor:
        """What the last layer sees.

        Args:
            x: [N, channels, h, w].
            mbstd_group: As in `minibatch_stddev`.
            num_batches: N is made up of so many batches, one after the other, with statistics of their own.

        Returns:
            [N, F].
        """
        if self.config.mbstd_channels:
            batches = x.chunk(num_batches)
            x = torch.cat([minibatch_stddev(batch, mbstd_group, self.config.mbstd_channels) for batch in batches])
        x = self.conv(x)
        y: Tensor = self.fc(x.flatten(1))
        return y

    def forward(self, x: Tensor, c: Tensor | None, num_batches: int = 1) -> Tensor:
        """X [N, channels, h, w], c [N, C] -> [N, 1]; ``num_batches`` as in `features`."""
        x = self.features(x, self.config.mbstd_group, num_batches)
        x = self.out(x)  # [N, number of logits]
        if c is None:
            return x
        if self.mapping is None:  # one logit per class: take the label's
            return (x * c.to(x.dtype)).sum(1, keepdim=True)
        embedding = self.mapping(c.to(x.dtype))  # projection on the embedded label
        return (x * embedding).sum(1, keepdim=True) / math.sqrt(embedding.shape[1])


class Discriminator(nn.Module):
    """Tells real images from generated ones, block by block, from the image's size down to ``b4``.

    Args:
        config: What to build.
    """

    f: Tensor | None

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        """Float type of the features but for the end (mixed precision); None is that of the images."""
        self.checkpoint_resolution: int | None = None
        """In training, blocks of this nominal resolution and above keep no activations for the backward pass but
        compute them again; None keeps all. Results are the same."""
        for i in range(config.plan.doublings, 0, -1):
            self.add_module(block_name(config.plan.sizes[i]), DiscriminatorBlock(config, i))
        self.add_module(block_name(config.plan.base), DiscriminatorEpilogue(config))
        skips = config.architecture == "skip"
        self.register_buffer("f", resample_filters("stylegan2", config.blur)[0] if skips else None, persistent=False)

    @property
    def c_dim(self) -> int:
        """Length of a label; 0 for an unconditional network."""
        return self.config.c_dim

    @property
    def img_resolution(self) -> int | tuple[int, int]:
        """Side of the square images, or (height, width)."""
        return self.config.resolution

    @property
    def img_channels(self) -> int:
        """Channels of the images."""
        return self.config.img_channels

    @property
    def blocks(self) -> list[DiscriminatorBlock | DiscriminatorEpilogue]:
        """The blocks, from the image's size to the base grid, where the epilogue stands."""
        return [block for block in self.children() if isinstance(block, DiscriminatorBlock | DiscriminatorEpilogue)]

    @property
    def num_features(self) -> int:
        """Length F of `features`."""
        return self._epilogue.fc.weight.shape[0]

    @property
    def _epilogue(self) -> DiscriminatorEpilogue:
        epilogue = self.blocks[-1]
        assert isinstance(epilogue, DiscriminatorEpilogue)
        return epilogue

    def forward(self, img: Tensor, c: Tensor | None = None, lod: float = 0.0, num_batches: int = 1) -> Tensor:
        """Scores images.

        Args:
            img: [N, C, H, W] in [-1, 1], full size at every lod.
            c: Labels [N, C]; None for an unconditional network.
            lod: Level of detail of a progressive network; 0 is full resolution.
            num_batches: The images are so many batches of equal size, one after the other, each with a minibatch
                standard deviation of its own: the logits of one batch at a time, but for roundings, in one pass.

        Returns:
            Logits [N, 1]; larger is more real.

        Raises:
            ValueError: A shape, a label or a level of detail that this network cannot take, or images that cannot be
                so many batches.
        """
        if num_batches < 1 or len(img) % num_batches:
            raise ValueError(f"num_batches: got {num_batches} for {len(img)} images, expected a divisor; leave it at 1")
        c = require_labels(c, len(img), self.config.c_dim)
        logits: Tensor = self._epilogue(self._last_map(img, lod), c, num_batches)  # [N, 1]
        return logits

    def features(self, img: Tensor) -> Tensor:
        """What the last layer sees [N, F], of each image [N, C, H, W] for itself: no statistics of the batch."""
        return self._epilogue.features(self._last_map(img), mbstd_group=1)

    def feature_maps(self, img: Tensor, lod: float = 0.0) -> Iterator[Tensor]:
        """What enters each block, from the image's size to the base grid.

        Args:
            img: As `forward` takes it.
            lod: As `forward` takes it.

        Yields:
            [N, channels, h, w] in ``compute_dtype``.

        Raises:
            ValueError: A shape or a level of detail that this network cannot take.
        """
        config = self.config
        require_shape("img", img, [None, config.img_channels, *config.size], "resize or convert the images")
        halvings, fade = split_lod(lod, config.plan.doublings, config.progressive)
        img = box_downsample2d(img.contiguous(memory_format=torch.channels_last), 2**halvings)
        img = img.to(self.compute_dtype or img.dtype)
        blocks = self.blocks[halvings:]

        assert blocks[0].fromrgb is not None
        x: Tensor = blocks[0].fromrgb(img)
        yield x
        for i, block in enumerate(blocks[:-1]):
            assert isinstance(block, DiscriminatorBlock)
            x = run_block(
                block, x, recompute=recomputes(self, config.plan.nominal[block.index])
            )  # [N, channels, h/2, w/2]
            fromrgb = blocks[i + 1].fromrgb
            if config.architecture == "skip":
                assert self.f is not None and fromrgb is not None
                img = downsample2d(img, self.f)
                x = x + fromrgb(img)
            elif i == 0 and fade > 0:
                assert fromrgb is not None
                x = torch.lerp(x, fromrgb(box_downsample2d(img, 2)), fade)
            assert_shape(x, [len(img), config.channels[block.index - 1], *blocks[i + 1].size])
            yield x

    def _last_map(self, img: Tensor, lod: float = 0.0) -> Tensor:
        """What enters the end, in the images' own type; what came before it is not kept."""
        (x,) = collections.deque(self.feature_maps(img, lod), maxlen=1)
        return x.to(img.dtype)
