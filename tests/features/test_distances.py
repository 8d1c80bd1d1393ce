import pytest
import torch
import torch.nn.functional as F
from random_weights import make_discriminator, pictures

from styleforge.features import load_distance
from styleforge.features.distances import unit_maps
from styleforge.images import from_uint8

NAMES = ["random-vgg", "pixel+discriminator"]


@pytest.fixture(scope="module")
def distances():
    torch.manual_seed(0)
    D = make_discriminator(resolution=32)
    return {name: load_distance(name, D=D) for name in NAMES}


def images(num=3, size=32, channels=3):
    return from_uint8(pictures(num, channels, size, size)), from_uint8(pictures(num, channels, size, size, seed=1))


def test_unit_maps_give_the_formula_of_lpips():
    a, b = torch.randn(2, 2, 5, 4, 6), torch.randn(2, 2, 7, 2, 3)  # two sides of two maps
    weights = [torch.rand(5), torch.rand(7)]
    expected = sum(
        ((F.normalize(x, dim=1) - F.normalize(y, dim=1)).square() * w[:, None, None]).sum(1).mean([1, 2])
        for (x, y), w in zip((a, b), weights, strict=True)
    )
    mine = (unit_maps([a[0], b[0]], weights) - unit_maps([a[1], b[1]], weights)).square().sum(1)
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_distance_is_that_of_embeddings(distances, name):
    a, b = images()
    distance = distances[name]
    d = distance(a, b)
    assert d.shape == (3,) and (d > 0.01).all()
    assert torch.equal(d, (distance.embed(a) - distance.embed(b)).square().sum(1))
    assert torch.equal(distance(b, a), d)
    assert (distance(a, a) == 0).all()
    assert distance.embed(a).ndim == 2
    assert (distance.name, distance.stand_in, len(distance.checksum)) == (name, True, 64)


@pytest.mark.parametrize("name", NAMES)
def test_following_the_gradient_brings_images_together(distances, name):
    a, b = images(1)
    distance = distances[name]
    target = distance.embed(b)
    assert not target.requires_grad
    img = a.clone().requires_grad_()
    adam = torch.optim.Adam([img], lr=0.05)
    for _ in range(30):
        adam.zero_grad()
        (distance.embed(img) - target).square().sum().backward()
        adam.step()
    assert distance(img.detach(), b) < 0.5 * distance(a, b)
    assert (img.detach() - b).square().mean() < (a - b).square().mean()


def test_more_of_another_image_is_further_away(distances):
    a, b = images()
    for distance in distances.values():
        near, middle, far = (distance(a, torch.lerp(a, b, t)) for t in (0.1, 0.3, 1.0))
        assert (near < middle).all() and (middle < far).all()


def test_gradients_are_finite_where_nothing_is_to_be_seen(distances):
    for distance in distances.values():
        img = torch.zeros(1, 3, 32, 32, requires_grad=True)
        distance(img, torch.zeros(1, 3, 32, 32)).sum().backward()
        assert img.grad.isfinite().all()


def test_the_discriminator_sees_images_of_other_sizes_resized(distances):
    a, b = images(size=64)
    assert (distances["pixel+discriminator"](a, b) > 0).all()


def test_a_model_of_other_channels_is_measured_on_all_of_them():
    D = make_discriminator(img_channels=6)
    a, b = images(2, 16, 6)
    distance = load_distance("pixel+discriminator", D=D)
    b = torch.cat([a[:, :5], b[:, 5:]], dim=1)
    assert (distance(a, b) > 0).all()


def test_alpha_counts_in_the_rgb_view(distances):
    a = torch.rand(1, 4, 32, 32) * 2 - 1
    transparent = a.clone()
    transparent[:, 3] = -1
    white = torch.ones(1, 3, 32, 32)
    torch.testing.assert_close(distances["random-vgg"].embed(transparent), distances["random-vgg"].embed(white))
