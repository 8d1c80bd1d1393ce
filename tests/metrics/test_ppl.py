import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_generators import tiny_generator
from torch import nn

from styleforge.metrics import draws
from styleforge.metrics.ppl import (
    path_length,
    path_length_distances,
    per_image_path_lengths,
    slerp,
    trimmed_mean,
)

CASES = [(space, sampling) for space in "zw" for sampling in ("end", "full")]


class LinearGenerator(nn.Module):
    """w = B z, img = A w: everything about its paths is known."""

    def __init__(self, size=(4, 6), z_dim=5, w_dim=7):
        super().__init__()
        self.z_dim, self.size = z_dim, size
        self.register_buffer("B", torch.randn(w_dim, z_dim, dtype=torch.float64))
        self.register_buffer("A", torch.randn(3 * size[0] * size[1], w_dim, dtype=torch.float64))

    def mapping(self, z, c=None):
        w = z @ self.B.T
        if c is not None:
            w = w * c.sum(1, keepdim=True)
        return w[:, None].repeat(1, 2, 1)

    def synthesis(self, ws, noise_mode):
        assert noise_mode == "const"
        return (ws.mean(1) @ self.A.T).reshape(-1, 3, *self.size)


class PictureGenerator(LinearGenerator):
    """All pictures are one given picture times the only number of w."""

    def __init__(self, picture):
        super().__init__(picture.shape[1:], w_dim=1)
        self.A = picture.double().reshape(-1, 1)


def squared(img0, img1):
    return (img0 - img1).square().sum([1, 2, 3])


def ends(G, numbers, seed=0):
    return draws.draw_z(seed, numbers, 2 * G.z_dim, stream=draws.PATHS).double().chunk(2, dim=1)


# Steps on paths.


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_a_linear_generators_distances_in_w_are_analytic(sampling):
    """A step is ε (w₁ - w₀) wherever it starts, so d / ε² = |A B (z₁ - z₀)|²."""
    G = LinearGenerator()
    distances = path_length_distances(G, squared, sampling=sampling, num_samples=20)
    start, end = ends(G, range(20))
    expected = ((end - start) @ (G.A @ G.B).T).square().sum(1)
    assert distances.dtype == torch.float64
    torch.testing.assert_close(distances, expected, rtol=1e-9, atol=0)


def test_a_linear_generators_path_length_in_w_is_analytic():
    """With independent ends the expectation of |A B (z₁ - z₀)|² is twice the squared norm of A B."""
    G = LinearGenerator()
    distances = path_length_distances(G, squared, num_samples=4000, batch=500)
    expected = 2 * (G.A @ G.B).square().sum()
    assert abs(float(distances.mean() - expected)) < 4 * float(distances.std()) / 4000**0.5


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_a_rotations_distances_in_z_are_analytic(sampling):
    """On a unit circle all steps of an arc of angle θ are chords of length 2 sin(ε θ / 2)."""
    G = LinearGenerator()
    G.B = torch.linalg.qr(torch.randn(7, 5, dtype=torch.float64)).Q
    G.A = torch.linalg.qr(G.A).Q
    distances = path_length_distances(G, squared, space="z", sampling=sampling, num_samples=20)
    angles = F.cosine_similarity(*ends(G, range(20))).acos()
    torch.testing.assert_close(distances, (2 * (1e-4 * angles / 2).sin() / 1e-4) ** 2, rtol=1e-8, atol=0)


@pytest.mark.parametrize("space", ["z", "w"])
def test_full_sampling_looks_at_the_place_that_is_drawn(space):
    G = LinearGenerator()
    seen = []
    path_length_distances(
        G, lambda a, b: seen.append(a) or squared(a, b), space=space, sampling="full", num_samples=6, seed=3
    )
    start, end = ends(G, range(6), seed=3)
    t = draws.draw_uniform(3, range(6), stream=draws.PATH_TIMES)[:, None]
    place = slerp(start, end, t) if space == "z" else start.lerp(end, t)
    torch.testing.assert_close(seen[0][:6], G.synthesis(G.mapping(place), "const"))


def test_a_large_epsilon_is_divided_by():
    G = LinearGenerator()
    torch.testing.assert_close(
        path_length_distances(G, squared, num_samples=5, epsilon=0.5),
        path_length_distances(G, squared, num_samples=5),
        rtol=1e-7,
        atol=0,
    )


@pytest.mark.parametrize(("space", "sampling"), CASES)
def test_distances_do_not_depend_on_the_batch_or_on_who_measures_them(space, sampling):
    G = tiny_generator().double()
    settings = {"space": space, "sampling": sampling, "num_samples": 11, "seed": 5}
    whole = path_length_distances(G, squared, **settings)
    assert whole.shape == (11,) and (whole > 0).all() and len(whole.unique()) == 11
    assert torch.equal(path_length_distances(G, squared, **settings), whole)
    for batch in (1, 4, 100):
        torch.testing.assert_close(path_length_distances(G, squared, **settings, batch=batch), whole, rtol=1e-7, atol=0)
    parts = [path_length_distances(G, squared, **settings, indices=numbers) for numbers in (range(4), [7, 4, 5, 6], [])]
    torch.testing.assert_close(torch.cat(parts), whole[[0, 1, 2, 3, 7, 4, 5, 6]], rtol=1e-7, atol=0)
    assert not torch.isclose(path_length_distances(G, squared, **settings | {"seed": 6}), whole).any()


@pytest.mark.parametrize("kind", ["square", "config-a"])
def test_order_and_company_change_no_digit_of_a_distance(kind):
    G = tiny_generator(kind)
    whole = path_length_distances(G, squared, num_samples=11, batch=4)
    for numbers in (range(11), range(3, 6), [10, 0, 7, 7, 2], []):
        part = path_length_distances(G, squared, num_samples=11, batch=4, indices=numbers)
        assert torch.equal(part, whole[list(numbers)])


@pytest.mark.parametrize("kind", ["square", "non-square", "config-a", "rgba"])
def test_float32_changes_distances_by_rounding_alone(kind):
    G = tiny_generator(kind)
    single = path_length_distances(G, squared, num_samples=64)
    double = path_length_distances(G.double(), squared, num_samples=64)
    assert path_length(single) == pytest.approx(path_length(double), rel=1e-3)
    torch.testing.assert_close(single, double, rtol=0.05, atol=0)


def test_both_pictures_of_a_step_have_the_same_noise():
    G = tiny_generator()
    for block in G.synthesis.noise_inputs():
        block.strength.fill_(10)
    pairs = []
    path_length_distances(G, lambda a, b: pairs.append((a, b)) or squared(a, b), num_samples=3)
    assert (pairs[0][0] - pairs[0][1]).abs().max() < 1e-3 * pairs[0][0].abs().max()


def test_labels_are_shared_by_all_or_given_for_each():
    G = tiny_generator("conditional").double()
    c = torch.eye(3)[[0, 2, 1, 1]].double()
    each = path_length_distances(G, squared, num_samples=4, c=c, batch=3)
    for i in range(4):
        alone = path_length_distances(G, squared, num_samples=4, c=c[i])
        torch.testing.assert_close(each[i], alone[i], rtol=1e-7, atol=0)
    some = path_length_distances(G, squared, num_samples=4, c=c[[2, 3]], indices=[2, 3])
    torch.testing.assert_close(some, each[2:], rtol=1e-7, atol=0)


def test_what_gives_no_distance_is_refused(refuses):
    G = LinearGenerator()
    for settings, part in (
        ({"space": "x"}, "space 'x'"),
        ({"sampling": "middle"}, "sampling 'middle'"),
        ({"epsilon": 0}, "epsilon: got 0"),
        ({"num_samples": 0}, "num_samples: got 0"),
        ({"indices": [3, 8]}, "got 3 to 8"),
        ({"c": torch.ones(3, 1)}, "got shape [3, 1]"),
    ):
        with refuses(part):
            path_length_distances(G, squared, **{"num_samples": 8} | settings)
    with refuses("no labels"):
        path_length_distances(tiny_generator("conditional"), squared, num_samples=2)
    with refuses("not finite at sample 6"):
        path_length_distances(G, lambda a, b: torch.tensor([1.0, math.nan]), num_samples=8, indices=[5, 6], batch=2)


# What is looked at.


def views(picture, **settings):
    """What the distance function is shown of a picture, divided by w."""
    G, seen = PictureGenerator(picture), []
    path_length_distances(G, lambda a, b: seen.append(a) or squared(a, b), num_samples=1, batch=1, **settings)
    w = G.mapping(ends(G, [0])[0])[0, 0, 0]
    return seen[0][0] / w


def test_small_pictures_are_looked_at_as_they_are():
    picture = torch.rand(3, 24, 256, dtype=torch.float64)
    torch.testing.assert_close(views(picture), picture)


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(512, 512, 2), (1024, 512, 4), (384, 512, 2), (320, 448, 1), (640, 896, 2)]
)
def test_large_pictures_are_box_downsampled_by_a_whole_factor(height, width, factor):
    picture = torch.rand(3, height, width, dtype=torch.float64)
    boxes = picture.reshape(3, height // factor, factor, width // factor, factor)
    torch.testing.assert_close(views(picture), boxes.mean([2, 4]))


def test_the_crop_is_the_face_region_and_comes_before_downsampling():
    picture = torch.rand(3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(views(picture, crop=True), picture[:, 24:56, 16:48])
    picture = torch.rand(3, 1024, 1024, dtype=torch.float64)
    expected = F.avg_pool2d(picture[:, 384:896, 256:768], 2)
    assert expected.shape[1:] == (256, 256)
    torch.testing.assert_close(views(picture, crop=True), expected)


def test_pictures_that_are_no_squares_have_no_face_region(refuses):
    with refuses("24 wide and 16 high"):
        views(torch.rand(3, 16, 24), crop=True)


# Single pictures.


def test_a_linear_generators_picture_has_an_analytic_path_length():
    """E |A (w₁ - w₀)|² over w₁ = B z₁ is |A w₀|² + |A B|²."""
    G = LinearGenerator()
    ws = G.mapping(torch.randn(3, 5, dtype=torch.float64))
    lengths = per_image_path_lengths(G, squared, ws, num_directions=4000)
    expected = (ws[:, 0] @ G.A.T).square().sum(1) + (G.A @ G.B).square().sum()
    torch.testing.assert_close(lengths, expected, rtol=0.1, atol=0)
    z = draws.draw_z(0, [1], 2 * 5, stream=draws.DIRECTIONS).double().reshape(2, 5)
    exact = (G.mapping(z)[:, 0] - ws[1, 0]) @ G.A.T
    two = per_image_path_lengths(G, squared, ws, num_directions=2)[1]
    torch.testing.assert_close(two, exact.square().sum(1).mean(), rtol=1e-9, atol=0)


def test_the_mean_over_pictures_is_the_models_path_length():
    G = LinearGenerator()
    ws = G.mapping(draws.draw_z(0, range(300), 5, stream=draws.IMAGES).double())
    single = per_image_path_lengths(G, squared, ws, num_directions=2)
    model = path_length_distances(G, squared, num_samples=2000, batch=500)
    error = 4 * (single.var() / 300 + model.var() / 2000).sqrt()
    assert abs(single.mean() - model.mean()) < error


def test_a_pictures_path_length_follows_from_its_number_alone():
    G = tiny_generator("conditional").double()
    z, c = draws.draw_z(0, range(5), G.z_dim, stream=draws.IMAGES).double(), torch.eye(3)[[0, 1, 2, 0, 1]].double()
    ws = G.mapping(z, c)
    whole = per_image_path_lengths(G, squared, ws, num_directions=5, c=c)
    assert (whole > 0).all() and len(whole.unique()) == 5
    for batch in (1, 2):
        again = per_image_path_lengths(G, squared, ws, num_directions=5, c=c, batch=batch)
        torch.testing.assert_close(again, whole, rtol=1e-7, atol=0)
    some = per_image_path_lengths(G, squared, ws[[4, 2]], num_directions=5, c=c[[4, 2]], indices=[4, 2])
    torch.testing.assert_close(some, whole[[4, 2]], rtol=1e-7, atol=0)
    one_label = per_image_path_lengths(G, squared, ws[:1], num_directions=5, c=c[0])
    torch.testing.assert_close(one_label, whole[:1], rtol=1e-7, atol=0)


def test_pictures_without_a_path_length_are_refused(refuses):
    G = LinearGenerator()
    ws = G.mapping(torch.randn(3, 5, dtype=torch.float64))
    with refuses("num_directions: got 0"):
        per_image_path_lengths(G, squared, ws, num_directions=0)
    with refuses("indices: got 2 for 3 pictures"):
        per_image_path_lengths(G, squared, ws, indices=[1, 2])
    with refuses("got shape [2, 1]"):
        per_image_path_lengths(G, squared, ws, c=torch.ones(2, 1))
    with refuses("not finite at sample 9"):
        per_image_path_lengths(G, squared, ws[:1] * math.nan, indices=[9])


# Averages and arcs.


def test_the_lowest_and_highest_percent_are_dropped():
    distances = torch.arange(1000, dtype=torch.float64)[torch.randperm(1000)]
    distances[distances == 999] = 1e9
    # Of 1,000 values in order, the 1st percentile is at 9.99 and taken down to 9, the 99th at 989.01 and taken up.
    assert path_length(distances) == trimmed_mean(distances) == np.arange(9, 991).mean()
    assert trimmed_mean(distances, lower=0, upper=50) == np.arange(0, 501).mean()


def test_few_values_are_all_kept():
    assert path_length(torch.tensor([1.0, 2.0, 300.0])) == 101
    assert path_length(torch.tensor([7.0])) == 7


def test_no_mean_is_taken_of_nothing_or_of_what_is_no_number(refuses):
    with refuses("0 distances"):
        path_length(torch.empty(0))
    with refuses("2 distances, 1 of them finite"):
        path_length(torch.tensor([1.0, math.inf]))


def test_an_arc_runs_from_one_direction_to_the_other_at_an_even_speed():
    a, b = torch.randn(2, 4, 6, dtype=torch.float64)
    points = [slerp(a, b, torch.full((4, 1), t, dtype=torch.float64)) for t in (0, 0.25, 0.5, 0.75, 1)]
    torch.testing.assert_close(points[0], F.normalize(a))
    torch.testing.assert_close(points[-1], F.normalize(b))
    steps = [(p * q).sum(1).acos() for p, q in itertools.pairwise(points)]
    for step in steps:
        torch.testing.assert_close(step, F.cosine_similarity(a, b).acos() / 4)
    torch.testing.assert_close(slerp(a, a, torch.ones(4, 1).double()), F.normalize(a))
