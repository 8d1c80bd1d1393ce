import pytest
import torch
from tiny_generators import CASES, tiny_generator

from styleforge.analysis.jacobian import EXACT_LIMIT, pull, push, singular_values, suggested_rank
from styleforge.networks import Generator, GeneratorConfig


def dense(G, w):
    """The Jacobian [P, W] by torch's autograd, in reverse mode."""
    return torch.autograd.functional.jacobian(
        lambda w: G.synthesis(w.expand(1, G.num_ws, -1), noise_mode="const").flatten(), w, vectorize=True
    )


@pytest.fixture(scope="module")
def G():
    return tiny_generator().double()


@pytest.mark.parametrize("kind", CASES)
def test_singular_values_are_those_of_the_dense_jacobian(kind):
    G = tiny_generator(kind).double()
    w = torch.randn(8, dtype=torch.float64)
    values = singular_values(G, w, batch=3)
    torch.testing.assert_close(values, torch.linalg.svdvals(dense(G, w)), rtol=1e-9, atol=1e-12)
    assert values.shape == (8,)


def test_a_picture_smaller_than_w_has_as_many_as_pixels():
    config = {"resolution": 2, "img_channels": 1, "z_dim": 8, "w_dim": 8, "channel_base": 32, "channel_max": 4}
    G = Generator(GeneratorConfig(**config)).double().requires_grad_(False)
    w = torch.randn(8, dtype=torch.float64)
    values = singular_values(G, w)
    assert values.shape == (4,)
    torch.testing.assert_close(values, torch.linalg.svdvals(dense(G, w)), rtol=1e-9, atol=1e-12)


def test_randomized_values_are_the_largest_ones():
    torch.manual_seed(0)
    config = {"resolution": 16, "z_dim": 64, "w_dim": 64, "channel_base": 256, "channel_max": 12}
    G = Generator(GeneratorConfig(**config)).double().requires_grad_(False)
    w = torch.randn(64, dtype=torch.float64)
    exact = singular_values(G, w)
    few = singular_values(G, w, rank=8)
    assert few.shape == (8,)
    torch.testing.assert_close(few, exact[:8], rtol=0.02, atol=0)
    assert (few <= exact[:8] * (1 + 1e-9)).all()  # a projection loses, it cannot add
    assert torch.equal(singular_values(G, w, rank=8), few)


def test_all_values_can_be_had_by_the_randomized_way(G):
    w = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(singular_values(G, w, rank=8), singular_values(G, w), rtol=1e-9, atol=1e-12)


def test_push_and_pull_are_the_jacobian_and_its_transpose(G):
    w, tangent, cotangent = (torch.randn(n, dtype=torch.float64) for n in (8, 8, 3 * 16 * 16))
    J = dense(G, w)
    torch.testing.assert_close(push(G, w[None], tangent[None])[0], J @ tangent, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(pull(G, w, cotangent[None])[0], J.T @ cotangent, rtol=1e-10, atol=1e-12)


def test_each_derivative_is_at_its_own_point(G):
    w, tangents = torch.randn(2, 5, 8, dtype=torch.float64).unbind()
    alone = torch.cat([push(G, w[i : i + 1], tangents[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(push(G, w, tangents, batch=2), alone, rtol=1e-10, atol=1e-12)


def test_the_network_is_left_as_it_was(G):
    ws = torch.randn(2, G.num_ws, 8, dtype=torch.float64)
    before = G.synthesis(ws, noise_mode="const")
    singular_values(G, ws[0, 0])
    singular_values(G, ws[0, 0], rank=2)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), before)
    assert all(parameter.grad is None for parameter in G.parameters())


def test_large_networks_get_a_rank():
    assert suggested_rank(tiny_generator()) is None
    with torch.device("meta"):
        large = Generator(GeneratorConfig(resolution=1024))
    assert large.w_dim * 3 * 1024**2 > EXACT_LIMIT
    assert suggested_rank(large) == 64


def test_random_noise_is_refused(G, refuses):
    with refuses("random", "--noise-mode"):
        singular_values(G, torch.zeros(8, dtype=torch.float64), noise_mode="random")


def test_another_shape_is_refused(G, refuses):
    with refuses("w:", "[8]"):
        singular_values(G, torch.zeros(1, 8))


@pytest.mark.parametrize("rank", [0, 9])
def test_a_rank_out_of_range_is_refused(G, refuses, rank):
    with refuses("rank", "1 to 8"):
        singular_values(G, torch.zeros(8, dtype=torch.float64), rank=rank)
