import numpy as np
import pytest
import torch

from styleforge.networks import fade_images
from styleforge.networks.growing import split_lod


@pytest.mark.parametrize(
    ("lod", "parts"), [(0, (0, 0)), (0.0, (0, 0)), (0.25, (0, 0.25)), (1, (1, 0)), (2.5, (2, 0.5)), (3, (3, 0))]
)
def test_a_lod_is_whole_halvings_and_a_fade(lod, parts):
    assert split_lod(lod, 3, progressive=True) == parts


@pytest.mark.parametrize("lod", [-0.5, 3.01, float("nan"), float("inf")])
def test_a_lod_outside_the_network_is_refused(refuses, lod):
    with refuses("lod", str(lod), "0 to 3"):
        split_lod(lod, 3, progressive=True)


def test_a_network_that_does_not_grow_takes_lod_0_alone(refuses):
    assert split_lod(0, 3, progressive=False) == (0, 0)
    with refuses("lod", "0.5", "progressive=True"):
        split_lod(0.5, 3, progressive=False)


def halve(img):
    N, C, H, W = img.shape
    return img.reshape(N, C, H // 2, 2, W // 2, 2).mean((3, 5))


def double(img):
    return img.repeat(2, axis=2).repeat(2, axis=3)


@pytest.mark.parametrize("lod", [0, 0.5, 1, 1.25, 2, 2.75, 3])
def test_real_images_fade_as_the_definition_says(lod):
    img = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    expected = img.numpy()
    for _ in range(int(lod)):
        expected = halve(expected)
    if lod % 1:
        expected = expected + (double(halve(expected)) - expected) * (lod % 1)
    for _ in range(int(lod)):
        expected = double(expected)
    np.testing.assert_allclose(fade_images(img, lod).numpy(), expected, atol=1e-12)


def test_fading_is_continuous_in_lod():
    img = torch.randn(1, 3, 16, 16)
    for whole in (1, 2, 3):
        for lod in (whole - 1e-6, whole + 1e-6):
            torch.testing.assert_close(fade_images(img, lod), fade_images(img, whole), atol=1e-4, rtol=0)


def test_images_cannot_fade_below_one_pixel(refuses):
    with refuses("lod", "0 to 3"):
        fade_images(torch.zeros(1, 3, 8, 16), 4)
