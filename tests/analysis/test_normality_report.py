import json

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.normality_report import normality_report, plot_normality
from styleforge.latents import marginal_normality


@pytest.mark.parametrize("kind", ["square", "conditional"])
def test_numbers_are_those_of_the_samples(kind, tmp_path):
    G = tiny_generator(kind)
    report = normality_report(G, 300, seed=3)
    measured = marginal_normality(G, 300, seed=3)
    table, picture = report.write(tmp_path, {"seed": 3})
    values = json.loads(table.read_text())
    assert values["summary"] == report.summary() and values["settings"] == {"seed": 3} and values["num"] == 300
    for space in ("w", "v"):
        assert values[space]["ks_distance"]["all"] == measured[space].ks_distance.tolist()
        assert values[space]["skewness"]["median"] == pytest.approx(float(measured[space].skewness.quantile(0.5)))
    assert picture.name == "normality.png" and picture.stat().st_size > 1000


def test_two_dimensions_of_median_distance_are_shown():
    report = normality_report(tiny_generator(), 300)
    distance = report.w.ks_distance
    assert len(set(report.pair)) == 2
    assert {(distance < distance[i]).sum().item() for i in report.pair} == {3, 4}  # of 8


def test_a_label_restricts_the_samples():
    G, label = tiny_generator("conditional"), torch.eye(3)[1]
    report = normality_report(G, 50, c=label)
    assert torch.equal(report.w.samples, marginal_normality(G, 50, c=label)["w"].samples)


def test_dimensions_that_never_vary_are_drawn(tmp_path):
    report = normality_report(tiny_generator(), 50)
    report.w.samples.zero_()
    plot_normality(report, tmp_path / "flat.png")
    assert (tmp_path / "flat.png").exists()


def test_one_sample_is_refused(refuses):
    with refuses("at least 2", "--num"):
        normality_report(tiny_generator(), 1)
