"""Droplets that are planted in the features of clean generators, for the tests of what finds them."""

import contextlib

import torch

from styleforge.analysis.activations import alter


@contextlib.contextmanager
def planted(G, layer, *, seed=0, places=None, strength=10.0, radius=1.5, share=1.0):
    """Adds a bright spot, at a random place of each picture, to a layer's feature maps while the block runs.

    Args:
        G: The generator.
        layer: Name of the layer.
        seed: Of the places, which are the same for each batch.
        places: A list to which each picture's place (x, y) in pixels of the layer is appended.
        strength: Height of the spot in standard deviations of its map.
        radius: Standard deviation of its Gaussian profile, in pixels of the layer.
        share: Of the feature maps that have it.
    """

    def add(x):
        N, C, h, w = x.shape
        generator = torch.Generator().manual_seed(seed)
        place = torch.rand(N, 2, generator=generator) * torch.tensor([w - 1, h - 1])
        if places is not None:
            places.extend(place.tolist())
        across = torch.exp(-((torch.arange(w) - place[:, :1]) ** 2) / (2 * radius**2))  # [N, w]
        down = torch.exp(-((torch.arange(h) - place[:, 1:]) ** 2) / (2 * radius**2))  # [N, h]
        chosen = torch.arange(C)[:, None, None] < share * C
        return x + strength * chosen * x.std([2, 3], keepdim=True) * (down[:, :, None] * across[:, None])[:, None]

    with alter(G, layer, add):
        yield
