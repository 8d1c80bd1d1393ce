"""Extractors that need no download: a random VGG and a checkpoint's own discriminator.

Numbers made with them compare models among themselves, on the same stand-in; no published number compares to them.
"""
# Shapes: N batch, H W image size, F number of features.

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styleforge.features.base import Extractor, Features, state_checksum
from styleforge.images import from_uint8, rgb_view
from styleforge.networks import Discriminator

RANDOM_VGG = "random-vgg"
LARGEST_SIDE = 128
"""Larger pictures are averaged down to this before the random VGG extracts features, so that it stays cheap."""


class RandomVGG(nn.Module):
    """Convolutions as in VGG, with weights from a seed: 4 stages of 2 layers, halved between the stages.

    The weights are made of whole numbers by single rounded operations, so they are the same to the bit everywhere.

    Args:
        seed: Of the weights.
    """

    CHANNELS = (16, 32, 64, 128)
    CLASSES = 1000
    LOGIT_GAIN = 30
    """Makes classes distinct enough for an inception score of 2 to 3 on photos of animals."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = np.random.RandomState(seed)
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and then replaced
            sizes = [3, *self.CHANNELS]
            self.convs = nn.ModuleList(
                nn.Conv2d(i, o, 3, padding=1) for first, o in itertools.pairwise(sizes) for i in (first, o)
            )
            self.head = nn.Linear(2 * sum(self.CHANNELS), self.CLASSES)
        for layer in [*self.convs, self.head]:
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            # Features are positive: kernels that sum to zero keep their common part from drowning the rest.
            layer.weight.data = _random_weight(random, tuple(layer.weight.shape), centered=layer is not self.convs[0])
            assert layer.bias is not None
            layer.bias.data = _random_weight(random, tuple(layer.bias.shape), centered=False) * 0.1
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # the faster one on CPUs

    def maps(self, x: Tensor) -> list[Tensor]:
        """[N, 3, H, W] in [-1, 1] -> the features of each stage [N, channels, H / 2^i, W / 2^i]."""
        maps, x = [], x.contiguous(memory_format=torch.channels_last)
        for i, conv in enumerate(self.convs):
            if i % 2 == 0 and i > 0:
                x = F.avg_pool2d(x, 2, ceil_mode=True)  # [N, channels, h/2, w/2]
            x = F.leaky_relu(conv(x), 0.1)
            if i % 2 == 1:
                maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Features:
        """[N, 3, H, W] in [-1, 1] -> mean and standard deviation of every feature map [N, 480], logits [N, 1000]."""
        statistics = []
        for m in self.maps(x):
            mean = m.mean([2, 3], keepdim=True)  # [N, channels, 1, 1]
            variance = (m - mean).square().mean([2, 3])  # [N, channels]
            statistics += [mean[:, :, 0, 0], (variance + 1e-8).sqrt()]
        features = torch.cat(statistics, dim=1)  # [N, F]
        return Features(features, self.LOGIT_GAIN * self.head(features))


def _random_weight(random: np.random.RandomState, shape: tuple[int, ...], *, centered: bool) -> Tensor:
    """Uniform weights whose square sums to about 2 over a filter, so that ReLU layers keep the scale of features."""
    whole = random.randint(-(2**15), 2**15, size=shape, dtype=np.int32).astype(np.int64)
    fan_in = math.prod(shape[1:])
    axes = tuple(range(1, len(shape)))
    mean = whole.sum(axes, keepdims=True) / fan_in if centered else 0.0
    return torch.from_numpy(((whole - mean) * (math.sqrt(6 / fan_in) / 2**15)).astype(np.float32))


class RandomVGGExtractor(Extractor):
    """Features of the random VGG; cheap on a CPU. Pictures above 128 pixels are averaged down to that."""

    def __init__(self) -> None:
        network = RandomVGG()
        super().__init__(
            network,
            name=RANDOM_VGG,
            checksum=state_checksum(network),
            stand_in=True,
            resize=f"area-{LARGEST_SIDE}",
            num_features=network.head.in_features,
        )

    def _extract(self, images_uint8: Tensor) -> Features:
        x = from_uint8(rgb_view(images_uint8))  # [N, 3, H, W]
        H, W = x.shape[2:]
        if (largest := max(H, W)) > LARGEST_SIDE:
            size = [max(1, round(side * LARGEST_SIDE / largest)) for side in (H, W)]
            x = F.interpolate(x, size, mode="area")
        features: Features = self.network(x)
        return features


def frozen(D: Discriminator) -> Discriminator:
    """A copy in float32 that training no longer changes."""
    D = copy.deepcopy(D).eval().requires_grad_(False)
    D.compute_dtype = None
    return D


class DiscriminatorExtractor(Extractor):
    """What a discriminator's last layer sees.

    Args:
        D: Copied as it is now. Pictures must have its size and channels.
    """

    def __init__(self, D: Discriminator) -> None:
        super().__init__(
            frozen(D),
            name="discriminator",
            checksum=state_checksum(D),
            stand_in=True,
            resize="none",
            num_features=D.num_features,
        )

    def _extract(self, images_uint8: Tensor) -> Features:
        assert isinstance(self.network, Discriminator)
        return Features(self.network.features(from_uint8(images_uint8)), None)
