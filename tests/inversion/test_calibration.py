import json

import numpy as np
import pytest
import scipy.stats

from styleforge.inversion import Calibration
from styleforge.inversion.calibration import best_threshold, roc


def heaps(n=40, m=30, gap=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.lognormal(0, 0.5, n).tolist(), rng.lognormal(gap, 0.5, m).tolist()


@pytest.mark.parametrize("gap", [-1, 0, 0.5, 2])
def test_the_auc_is_that_of_mann_and_whitney(gap):
    generated, real = heaps(gap=gap)
    real[3] = generated[5]  # a tie
    u = scipy.stats.mannwhitneyu(real, generated).statistic
    calibration = Calibration(generated=generated, real=real)
    assert calibration.auc == pytest.approx(u / (40 * 30), abs=1e-12)


def test_the_area_under_the_curve_is_the_auc():
    calibration = Calibration(generated=heaps()[0], real=heaps()[1])
    curve = calibration.roc()
    assert np.trapezoid(curve.true_positive, curve.false_positive) == pytest.approx(calibration.auc)
    assert (curve.true_positive[0], curve.false_positive[0]) == (0, 0)
    assert (curve.true_positive[-1], curve.false_positive[-1]) == (1, 1)


def test_the_curve_counts_pictures_at_or_below_each_threshold():
    curve = roc([1, 2, 2], [2, 5])
    assert curve.thresholds.tolist() == [-np.inf, 1, 2, 5]
    assert curve.true_positive.tolist() == pytest.approx([0, 1 / 3, 1, 1])
    assert curve.false_positive.tolist() == [0, 0, 0.5, 1]


def test_the_threshold_makes_the_fewest_errors():
    generated, real = heaps(gap=0.7)
    calibration = Calibration(generated=generated, real=real)

    def error(threshold):
        return (np.mean(np.array(generated) > threshold) + np.mean(np.array(real) <= threshold)) / 2

    assert error(calibration.threshold) == min(error(x) for x in [*generated, *real])


def test_the_threshold_lies_in_the_middle_of_the_widest_gap():
    assert best_threshold([0.01, 0.02], [0.08, 0.5]) == pytest.approx(0.04)  # half way as ratios go
    assert best_threshold([1, 1.1, 9], [1.05, 4, 10]) in (pytest.approx((1.1 * 4) ** 0.5), pytest.approx(90**0.5))
    assert best_threshold([2, 2], [2, 2]) == 2


def test_the_error_judges_each_picture_by_the_others():
    assert Calibration(generated=[1, 1.1, 1.2], real=[5, 6, 7]).error == 0
    # With itself out of the way, 3 falls on the wrong side of sqrt(1.1 · 5) < 3.
    assert Calibration(generated=[1, 1.1, 3], real=[5, 6, 7]).error == pytest.approx(1 / 6)
    same = np.random.default_rng(1).uniform(1, 2, 40)
    assert 0.25 < Calibration(generated=same[:20].tolist(), real=same[20:].tolist()).error < 0.75


def test_a_calibration_comes_back_from_json():
    calibration = Calibration(generated=heaps()[0], real=heaps()[1], settings={"seed": 3})
    text = json.dumps(calibration.to_dict())
    assert Calibration.from_dict(json.loads(text)) == calibration
    assert json.loads(text)["auc"] == calibration.auc


@pytest.mark.parametrize(
    ("generated", "real", "part"),
    [([1], [2, 3], "got 1 distances of generated"), ([1, 2], [], "real"), ([1, np.nan], [2, 3], "finite")],
)
def test_too_few_distances_are_refused(refuses, generated, real, part):
    with refuses("calibration", part):
        Calibration(generated=generated, real=real)


def test_other_json_is_refused(refuses):
    with refuses("calibration: got no distances"):
        Calibration.from_dict({"real": [1, 2]})
