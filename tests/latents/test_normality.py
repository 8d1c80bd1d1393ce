import numpy as np
import pytest
import scipy.stats
import torch
from tiny_generators import tiny_generator

from styleforge import checkpoint
from styleforge.latents.normality import marginal_normality, normality


@pytest.mark.parametrize("N", [2, 17, 1000])
def test_statistics_are_scipys(N):
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(3, 2, N), rng.exponential(1, N), rng.uniform(-1, 1, N), rng.standard_t(3, N)], axis=1)
    measured = normality(torch.from_numpy(x))
    np.testing.assert_allclose(measured.skewness, scipy.stats.skew(x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measured.excess_kurtosis, scipy.stats.kurtosis(x), rtol=1e-9, atol=1e-12)
    for column, distance in zip(x.T, measured.ks_distance, strict=True):
        fitted = (column.mean(), column.std(ddof=1))
        assert distance == pytest.approx(scipy.stats.kstest(column, "norm", args=fitted).statistic, rel=1e-9)


def test_of_normal_dimensions_few_are_farther_than_the_documented_distance():
    N = 2000
    distances = normality(torch.randn(N, 1000)).ks_distance
    assert 0.92 < (distances < 0.886 / N**0.5).float().mean() < 0.98


def test_a_dimension_that_never_varies_is_far_from_normal():
    samples = torch.cat([torch.full((100, 1), 0.1), torch.randn(100, 1)], dim=1)
    measured = normality(samples)
    assert (measured.skewness[0], measured.excess_kurtosis[0], measured.ks_distance[0]) == (0, -3, 0.5)
    assert measured.samples is samples


def test_v_of_the_bundled_network_is_normal_and_w_is_not():
    G = checkpoint.load_generator("demo")
    measured = marginal_normality(G, 2000)
    assert measured["w"].samples.shape == (2000, G.w_dim)
    w, v = (measured[space].ks_distance.median() for space in ("w", "v"))
    assert v < 0.02 < 0.1 < w
    assert measured["v"].skewness.abs().median() < 0.1 < 1 < measured["w"].skewness.median()


def test_both_spaces_have_the_same_samples():
    G = tiny_generator("conditional")
    measured = marginal_normality(G, 50, seed=2, c=torch.eye(3)[1])
    w, v = measured["w"].samples, measured["v"].samples
    torch.testing.assert_close(v, torch.where(w < 0, 5 * w, w))
    assert torch.equal(marginal_normality(G, 50, seed=2, c=torch.eye(3)[1])["w"].samples, w)
