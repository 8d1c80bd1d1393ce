import warnings

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from styleforge.metrics.kid import kernel_distance, squared_mmd


def two_sets(num_x=90, num_y=70, F=16):
    return torch.rand(num_x, F, dtype=torch.float64), torch.rand(num_y, F, dtype=torch.float64) ** 2


@pytest.mark.parametrize("seed", [0, 2020])
def test_with_the_same_seed_the_number_is_torch_fidelitys(seed):
    x, y = two_sets()
    reference = kid_features_to_metric(x, y, kid_subsets=12, kid_subset_size=50, rng_seed=seed, verbose=False)
    mean, std = kernel_distance(x, y, num_subsets=12, subset_size=50, seed=seed)
    assert mean == pytest.approx(reference["kernel_inception_distance_mean"], rel=1e-9)
    assert std == pytest.approx(reference["kernel_inception_distance_std"], rel=1e-9)


def test_the_distance_is_the_sum_over_pairs():
    x, y = two_sets(6, 4, 3)

    def mean_kernel(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return np.mean([(float(a[i] @ b[j]) / 3 + 1) ** 3 for i, j in pairs])

    expected = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)


def test_the_estimate_has_no_bias():
    """Sets from one distribution are at no distance on average."""
    generator = torch.Generator().manual_seed(0)
    estimates = [squared_mmd(*torch.rand(2, 20, 4, dtype=torch.float64, generator=generator)) for _ in range(2000)]
    assert abs(np.mean(estimates)) < 4 * np.std(estimates) / 2000**0.5
    assert min(estimates) < 0


@pytest.mark.parametrize("convert", [lambda x: x.numpy(), lambda x: x.float().numpy(), lambda x: x.float()])
def test_arrays_and_other_float_types_are_taken_in_float64(convert):
    x, y = (a.float().double() for a in two_sets())
    expected = kernel_distance(x, y, num_subsets=3, subset_size=20)
    assert kernel_distance(convert(x), convert(y), num_subsets=3, subset_size=20) == expected


def test_memory_maps_of_files_are_read(tmp_path):
    x, y = (a.float().numpy() for a in two_sets())
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert kernel_distance(mapped, y, num_subsets=3, subset_size=20) == kernel_distance(
        x, y, num_subsets=3, subset_size=20
    )


def test_the_same_seed_gives_the_same_number_and_another_one_another():
    x, y = two_sets()
    first = kernel_distance(x, y, num_subsets=5, subset_size=40)
    assert kernel_distance(x, y, num_subsets=5, subset_size=40) == first
    assert kernel_distance(x, y, num_subsets=5, subset_size=40, seed=1) != first


def test_fewer_samples_than_a_subset_are_all_taken_and_a_warning_says_so():
    x, y = two_sets(90, 70)
    with pytest.warns(UserWarning, match="got 90 and 70 samples, expected at least 1000.*subsets of 70") as caught:
        mean, std = kernel_distance(x, y, num_subsets=5)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert (mean, std) == kernel_distance(x, y, num_subsets=5, subset_size=70) and std > 0
    with pytest.warns(UserWarning):
        mean, std = kernel_distance(x[:70], y, num_subsets=5)
    assert mean == pytest.approx(squared_mmd(x[:70], y), rel=1e-9) and std < 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel_distance(x, y, num_subsets=2, subset_size=70)


def test_what_gives_no_number_is_refused(refuses):
    x, y = two_sets()
    with refuses("y: got 1 samples", "at least 2"):
        kernel_distance(x, y[:1])
    with refuses("y", "[any, 16]"):
        kernel_distance(x, y[:, :5])
    with refuses("x", "sample 8"):
        kernel_distance(torch.where(torch.arange(90)[:, None] == 8, torch.nan, x), y)
    with refuses("0 subsets"):
        kernel_distance(x, y, num_subsets=0)
    with refuses("subsets of 1 samples"):
        kernel_distance(x, y, subset_size=1)
