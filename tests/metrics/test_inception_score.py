import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from styleforge.metrics.inception_score import inception_score


@pytest.mark.parametrize("num", [100, 237])
@pytest.mark.parametrize("splits", [1, 10])
def test_the_score_is_torch_fidelitys(num, splits):
    logits = 3 * torch.randn(num, 20)
    for seed in (2020, 5, None):
        reference = isc_features_to_metric(logits, splits, shuffle=seed is not None, rng_seed=seed)
        mean, std = inception_score(logits, splits=splits, seed=seed)
        assert mean == pytest.approx(reference["inception_score_mean"], rel=1e-12)
        assert std == pytest.approx(reference["inception_score_std"], rel=1e-9, abs=1e-12)


def test_torch_fidelitys_shuffle_is_the_default():
    logits = torch.randn(100, 20)
    reference = isc_features_to_metric(logits)
    assert inception_score(logits)[0] == pytest.approx(reference["inception_score_mean"], rel=1e-12)


def test_certain_and_even_classes_score_their_number():
    logits = 1e4 * torch.eye(8).repeat(5, 1)  # probabilities that no float64 tells from 0 and 1
    mean, std = inception_score(logits, splits=5, seed=None)
    assert mean == pytest.approx(8, rel=1e-12) and std < 1e-12


def test_one_class_or_no_certainty_scores_one():
    for logits in (torch.zeros(40, 8), 1e4 * torch.eye(8)[:1].repeat(40, 1)):
        assert inception_score(logits) == (pytest.approx(1, rel=1e-12), pytest.approx(0, abs=1e-12))


def test_parts_of_a_sorted_set_have_all_classes_unless_it_is_not_shuffled():
    logits = 50 * torch.eye(5).repeat_interleave(100, 0)
    assert inception_score(logits, splits=5)[0] > 4.5
    assert inception_score(logits, splits=5, seed=None)[0] == pytest.approx(1)


def test_arrays_are_taken():
    logits = torch.randn(50, 6)
    assert inception_score(logits.numpy()) == inception_score(logits)


def test_what_gives_no_score_is_refused(refuses):
    with refuses("19 samples", "at least 20"):
        inception_score(torch.randn(19, 4))
    with refuses("0 splits"):
        inception_score(torch.randn(50, 4), splits=0)
    with refuses("not finite", "sample 0"):
        inception_score(np.full((50, 4), np.nan))
