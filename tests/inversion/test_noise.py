import pytest
import torch

from styleforge.inversion.noise import autocorrelation, renormalize_


def by_the_formula(noise):
    """L_ij of Appendix D, pixel by pixel, summed over the pyramid of one map."""
    total = 0.0
    while True:
        height, width = len(noise), len(noise[0])
        horizontal = sum(noise[y][x] * noise[y][x - 1] for y in range(height) for x in range(width))
        vertical = sum(noise[y][x] * noise[y - 1][x] for y in range(height) for x in range(width))
        total += (horizontal / (height * width)) ** 2 + (vertical / (height * width)) ** 2
        if min(height, width) <= 8:
            return total
        noise = [
            [
                2 * (noise[y][x] + noise[y + 1][x] + noise[y][x + 1] + noise[y + 1][x + 1]) / 4
                for x in range(0, width, 2)
            ]
            for y in range(0, height, 2)
        ]


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (16, 16), (32, 32), (24, 32), (10, 14), (4, 16)])
def test_is_the_papers_sum(size):
    noise = torch.randn(3, 1, *size, dtype=torch.float64)
    expected = torch.tensor([by_the_formula(maps[0].tolist()) for maps in noise], dtype=torch.float64)
    assert torch.allclose(autocorrelation(noise), expected, rtol=1e-10)


def test_signal_is_dear_and_noise_cheap():
    noise = torch.randn(1, 1, 64, 64)
    signal = torch.linspace(0, 6.283, 64).sin().expand(1, 1, 64, 64) * 2**0.5
    assert autocorrelation(signal) > 100 * autocorrelation(noise)


def test_the_gradient_is_that_of_finite_differences():
    noise = torch.randn(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(autocorrelation, noise)


def test_renormalised_maps_have_mean_0_and_variance_1_each():
    noise = torch.randn(3, 1, 16, 8) * torch.tensor([0.1, 1, 50])[:, None, None, None] + 7
    renormalize_(noise)
    assert torch.allclose(noise.mean([1, 2, 3]), torch.zeros(3), atol=1e-5)
    assert torch.allclose(noise.var([1, 2, 3], correction=0), torch.ones(3), atol=1e-5)


def test_a_map_of_equal_values_becomes_zeros():
    noise = torch.full((1, 1, 4, 4), 3.0)
    renormalize_(noise)
    assert (noise == 0).all()
