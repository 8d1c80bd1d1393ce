import pytest
import torch
from tiny_generators import tiny_generator
from torch import nn

from styleforge.features import Distance
from styleforge.latents import GaussianLatents, generate_images


class PixelDistance(Distance):
    """The mean squared error: cheap, and smooth."""

    def __init__(self):
        super().__init__(nn.Identity(), name="pixels", checksum="0" * 64, stand_in=True)

    def _embed(self, img):
        return img.flatten(1) / img[0].numel() ** 0.5


@pytest.fixture(scope="session")
def pixels():
    return PixelDistance()


@pytest.fixture(scope="session")
def G():
    return tiny_generator()


@pytest.fixture(scope="session")
def generated(G):
    """Five pictures that the network made."""
    return torch.cat([images_uint8 for _, _, images_uint8 in generate_images(G, range(5))])


@pytest.fixture(scope="session")
def foreign():
    """Five pictures that it did not make: smooth, of random colours."""
    torch.manual_seed(3)
    small = torch.rand(5, 3, 3, 3)
    return (nn.functional.interpolate(small, (16, 16), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


@pytest.fixture(scope="session")
def gaussian(G):
    return GaussianLatents.fit(G, 5000)
