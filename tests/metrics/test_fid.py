import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from styleforge.metrics.fid import Moments, frechet_distance, require_features


def gaussian(F, seed, rank=None):
    """A random mean and a covariance of some rank."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(F, rank or F, generator=generator, dtype=torch.float64)
    return torch.randn(F, generator=generator, dtype=torch.float64), root @ root.T


def moments_of(*batches):
    moments = Moments(batches[0].shape[1])
    for batch in batches:
        moments.add(batch)
    return moments


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# The distance.


def test_the_distance_is_torch_fidelitys():
    x, y = torch.rand(500, 32).double(), (torch.rand(400, 32) ** 2).double()
    reference = fid_statistics_to_metric(*map(fid_features_to_statistics, (x, y)), verbose=False)
    a, b = moments_of(x), moments_of(y)
    distance = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert distance == pytest.approx(reference["frechet_inception_distance"], rel=1e-9)


def test_the_distance_is_that_of_the_matrix_square_root():
    (mu1, sigma1), (mu2, sigma2) = gaussian(20, 1), gaussian(20, 2)
    root = scipy.linalg.sqrtm((sigma1 @ sigma2).numpy()).real
    expected = (mu1 - mu2).square().sum() + (sigma1 + sigma2).trace() - 2 * np.trace(root)
    assert frechet_distance(mu1, sigma1, mu2, sigma2) == pytest.approx(float(expected), rel=1e-9)


def test_gaussians_with_one_basis_have_the_closed_form():
    """|μ₁ - μ₂|² plus the squared differences of standard deviations, zeros among them."""
    basis = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    deviations1 = torch.tensor([3.0, 2, 1, 0, 0, 0.5, 7, 1e-6, 0, 4, 2, 1]).double()
    deviations2 = torch.tensor([1.0, 0, 5, 0, 2, 0.5, 8, 1e-3, 1, 0, 2, 0]).double()
    sigma1, sigma2 = (basis * deviations.square() @ basis.T for deviations in (deviations1, deviations2))
    mu1, mu2 = torch.randn(2, 12, dtype=torch.float64)
    expected = (mu1 - mu2).square().sum() + (deviations1 - deviations2).square().sum()
    assert frechet_distance(mu1, sigma1, mu2, sigma2) == pytest.approx(float(expected), rel=1e-9)


def test_gaussians_of_rank_one_have_the_closed_form():
    """With Σ = a aᵀ, tr (Σ₁ Σ₂)^½ is |a·b|."""
    a, b = torch.randn(2, 50, dtype=torch.float64)
    zero = torch.zeros(50, dtype=torch.float64)
    expected = a @ a + b @ b - 2 * (a @ b).abs()
    assert frechet_distance(zero, a.outer(a), zero, b.outer(b)) == pytest.approx(float(expected), rel=1e-7)


@pytest.mark.parametrize(("rank1", "rank2"), [(5, 40), (40, 5), (3, 5)])
def test_ranks_may_differ(rank1, rank2):
    (mu1, sigma1), (mu2, sigma2) = gaussian(40, 1, rank1), gaussian(40, 2, rank2)
    # A nonzero part of the spectrum of Σ₁ Σ₂ is that of a small regular matrix.
    values, vectors = torch.linalg.eigh(sigma1)
    root = vectors[:, -rank1:] * values[-rank1:].sqrt()
    cross = torch.linalg.eigvalsh(root.T @ sigma2 @ root).sort(descending=True).values[: min(rank1, rank2)].sqrt().sum()
    expected = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * cross
    assert frechet_distance(mu1, sigma1, mu2, sigma2) == pytest.approx(float(expected), rel=1e-7)


def test_supports_at_right_angles_share_nothing():
    sigma1, sigma2 = torch.zeros(2, 30, 30, dtype=torch.float64)
    sigma1[:10, :10], sigma2[10:, 10:] = gaussian(10, 1)[1], gaussian(20, 2)[1]
    rotation = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64)).Q
    sigma1, sigma2 = (rotation @ sigma @ rotation.T for sigma in (sigma1, sigma2))
    zero = torch.zeros(30, dtype=torch.float64)
    expected = float(sigma1.trace() + sigma2.trace())
    assert frechet_distance(zero, sigma1, zero, sigma2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num", [2, 10, 300])
@pytest.mark.parametrize("offset", [0, 100])
def test_a_set_is_at_no_distance_from_itself(num, offset):
    x = 10 * torch.rand(num, 128) + offset
    a, b = moments_of(x), moments_of(*x.flip(0).split(7))
    assert 0 <= frechet_distance(a.mean, a.covariance, a.mean, a.covariance) < 1e-6
    assert 0 <= frechet_distance(a.mean, a.covariance, b.mean, b.covariance) < 1e-6


def test_samples_that_are_all_the_same_have_a_distance():
    zero, (mu, sigma) = torch.zeros(6, 6, dtype=torch.float64), gaussian(6, 1)
    assert frechet_distance(mu, zero, mu, zero) == 0
    assert frechet_distance(mu, zero, mu + 2, zero) == pytest.approx(24)
    assert frechet_distance(mu, zero, mu, sigma) == pytest.approx(float(sigma.trace()))


def test_the_distance_is_symmetric_and_takes_arrays_and_floats():
    (mu1, sigma1), (mu2, sigma2) = gaussian(16, 1), gaussian(16, 2, 9)
    distance = frechet_distance(mu1, sigma1, mu2, sigma2)
    assert frechet_distance(mu2, sigma2, mu1, sigma1) == pytest.approx(distance, rel=1e-12)
    assert frechet_distance(mu1.numpy(), sigma1.numpy(), mu2, sigma2) == distance
    as_floats = frechet_distance(*(x.float() for x in (mu1, sigma1, mu2, sigma2)))
    assert as_floats == pytest.approx(distance, rel=1e-4)


def test_the_distance_refuses_what_is_no_gaussian(refuses):
    mu, sigma = gaussian(4, 1)
    with refuses("first mean of shape [3]", "[4, 4]"):
        frechet_distance(mu[:3], sigma, mu, sigma)
    with refuses("4 and 3 features"):
        frechet_distance(mu, sigma, mu[:3], sigma[:3, :3])
    with refuses("second", "not finite"):
        frechet_distance(mu, sigma, mu, sigma * float("nan"))
    with refuses("second covariance", "eigenvalue -"):
        frechet_distance(mu, sigma, mu, sigma - 10 * torch.eye(4))
    with refuses("first covariance", "eigenvalue -"):
        frechet_distance(mu, -sigma, mu, sigma)


# Moments.


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_moments_are_numpys_for_every_batch_size(size):
    x = torch.rand(130, 24).double()
    moments = moments_of(*x.split(size))
    assert moments.count == 130
    assert relative(moments.mean, x.mean(0)) < 1e-14
    assert relative(moments.covariance, torch.from_numpy(np.cov(x.numpy(), rowvar=False))) < 1e-12


def test_large_means_take_no_digits_from_the_covariance():
    x = torch.randn(200, 8, dtype=torch.float64)
    expected = torch.from_numpy(np.cov(x.numpy(), rowvar=False))
    shifted = x + 2**30
    assert relative(moments_of(*shifted.split(9)).covariance, expected) < 1e-6  # 2⁻²² is the rounding of shifted
    exact = torch.from_numpy(np.cov((shifted - 2**30).numpy(), rowvar=False))
    assert relative(moments_of(*shifted.split(9)).covariance, exact) < 1e-7


def test_two_halves_merged_equal_the_whole():
    x = torch.rand(101, 16)
    whole, first, second = moments_of(*x.split(8)), moments_of(*x[:40].split(8)), moments_of(*x[40:].split(8))
    for merged in (first.merge(second), second.merge(first), Moments(16).merge(whole), whole.merge(Moments(16))):
        assert merged.count == 101
        assert relative(merged.mean, whole.mean) < 1e-14
        assert relative(merged.covariance, whole.covariance) < 1e-13
    assert first.count == 40 and second.count == 61


def test_moments_go_on_from_their_state_bit_for_bit():
    first, second = torch.rand(2, 30, 5)
    straight = moments_of(first, second)
    before = moments_of(first)
    restored = Moments.from_state({name: tensor.clone() for name, tensor in before.state_dict().items()})
    restored.add(second)
    assert restored.count == 60
    assert torch.equal(restored.mean, straight.mean) and torch.equal(restored.covariance, straight.covariance)
    restored = Moments.from_state(before.state_dict())
    restored.add(second)
    assert torch.equal(before.mean, moments_of(first).mean)  # they share no memory


def test_moments_of_half_precision_features_are_taken_in_float64():
    x = torch.rand(50, 4).half()
    assert torch.equal(moments_of(x).covariance, moments_of(x.double()).covariance)


def test_moments_refuse_what_makes_no_covariance(refuses):
    moments = Moments(3)
    with refuses("0 samples"):
        _ = moments.mean
    moments.add(torch.rand(0, 3))
    moments.add(torch.rand(1, 3))
    assert moments.mean.shape == (3,)
    with refuses("1 samples", "at least 2"):
        _ = moments.covariance
    with refuses("[2, 4]", "[any, 3]"):
        moments.add(torch.rand(2, 4))
    bad = torch.rand(5, 3)
    bad[3, 1] = float("inf")
    with refuses("not finite", "sample 3"):
        moments.add(bad)
    assert moments.count == 1 and moments.mean.isfinite().all()


# Features.


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy()], ids=["tensor", "array"])
def test_features_are_checked_row_by_row(convert, refuses):
    x = torch.rand(5000, 2)
    require_features("real", convert(x), num_features=2, at_least=5000)
    with refuses("real: got 5000 samples", "at least 5001"):
        require_features("real", convert(x), at_least=5001)
    with refuses("[5000, 2]", "[any, 3]"):
        require_features("real", convert(x), num_features=3)
    with refuses("[5000]"):
        require_features("real", convert(x[:, 0]))
    x[4500, 1] = float("nan")
    with refuses("sample 4500"):
        require_features("real", convert(x))
