import json

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from tiny_generators import tiny_generator

from styleforge.analysis import compare_readings, factor_report, plot_factors, reader_config
from styleforge.analysis.factors import distribution_distance
from styleforge.data.portraits import FACTORS, draw, sample_factors
from styleforge.latents import generate_images

NAMES = [factor.name for factor in FACTORS]


def report_of(reader, numbers):
    """The report of a generator that makes the portraits with these numbers."""
    pictures = [torch.from_numpy(draw(sample_factors(i, 77), 16)).permute(2, 0, 1) for i in numbers]
    return compare_readings(reader, reader.read(torch.stack(pictures)))


@pytest.fixture(scope="module")
def redrawn(reader):
    return report_of(reader, range(150))


@pytest.fixture(scope="module")
def frozen(reader):
    return report_of(reader, [0] * 60)


def test_portraits_drawn_anew_have_the_spread_of_the_data(redrawn):
    assert [stats.name for stats in redrawn.factors] == NAMES
    readable = [stats for stats in redrawn.factors if stats.readable]
    assert {"skin", "clothes", "background"} <= {stats.name for stats in readable}
    for stats in readable:
        assert abs(stats.spread - 1) < 0.2, stats
        assert stats.distance < 2 * stats.chance, stats
        assert stats.verdict == "as varied as the data"


def test_one_portrait_again_and_again_has_no_spread(frozen):
    for stats in frozen.factors:
        if stats.readable:
            assert stats.spread < 1e-3 and stats.distance > 2 * stats.chance
            assert stats.verdict.startswith("collapsed")
            common = [value for value, share in stats.drawn.get("shares", {}).items() if share * 60 >= 10]
            assert len(stats.missing) in (len(common), max(len(common) - 1, 0))
    assert "(" in frozen.summary() and "to 0.00" in frozen.summary()


def test_half_of_a_factors_range_is_narrower_and_away_from_the_data(reader):
    skin = NAMES.index("skin")
    fair = [i for i in range(300) if sample_factors(i, 77)[skin] < 0.5]
    report = report_of(reader, fair[:100])
    stats = report.factors[skin]
    assert 0.3 < stats.spread < 0.8 and stats.verdict == "narrower than the data"
    assert stats.distance > 3 * stats.chance and stats.generated["mean"] < stats.drawn["mean"]
    assert abs(report.factors[NAMES.index("background")].spread - 1) < 0.25


def test_a_value_that_never_comes_is_named(reader):
    style = NAMES.index("hair_style")
    readings = reader.held_out_readings[reader.held_out_readings[:, style] != 4]
    stats = compare_readings(reader, readings).factors[style]
    assert stats.missing == ["long"] and stats.generated["shares"]["long"] == 0
    assert stats.verdict.endswith("without long") or not stats.readable


def test_readings_of_the_data_itself_are_at_no_distance(reader):
    report = compare_readings(reader, reader.held_out_readings)
    assert all(stats.distance == 0 for stats in report.factors)
    assert all(stats.spread in (1, None) for stats in report.factors)


def test_what_cannot_be_read_is_flagged(redrawn, reader):
    for stats, score in zip(redrawn.factors, reader.scores(), strict=True):
        assert stats.score == score and stats.readable == (score >= 0.5)
        assert (stats.verdict == "not readable") == (not stats.readable)
    assert f"{sum(stats.readable for stats in redrawn.factors)} of 19 factors are readable" in redrawn.summary()


def test_distances_are_wassersteins_and_total_variation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=41), rng.normal(0.3, 2, size=77)
    light, backdrop = FACTORS[NAMES.index("light")], FACTORS[NAMES.index("backdrop")]
    expected = scipy.stats.wasserstein_distance(a, b) / (2 / 12**0.5)
    assert distribution_distance(light, a, b) == pytest.approx(expected)
    assert distribution_distance(light, a, a) == 0
    assert distribution_distance(backdrop, np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])) == pytest.approx(0.5)


def test_numbers_describe_the_readings(redrawn):
    for i, stats in enumerate(redrawn.factors):
        values = redrawn.generated[:, i]
        if stats.kind == "continuous":
            assert stats.generated["std"] == pytest.approx(values.std())
            assert stats.spread == pytest.approx(values.std() / redrawn.drawn[:, i].std())
            assert stats.generated["quantiles"]["0.5"] == pytest.approx(np.median(values))
        else:
            shares = [(values == k).mean() for k in range(len(FACTORS[i].values))]
            assert list(stats.generated["shares"].values()) == pytest.approx(shares)
            assert stats.generated["entropy"] == pytest.approx(scipy.stats.entropy(shares))


def test_a_report_is_of_the_pictures_of_the_first_seeds(reader):
    G = tiny_generator()
    first, again = (factor_report(G, num=12, reader=reader, batch=12) for _ in range(2))
    assert first.factors == again.factors
    assert np.array_equal(first.generated, again.generated)
    pictures = torch.cat([images_uint8 for _, _, images_uint8 in generate_images(G, range(12), batch=12)])
    assert np.array_equal(first.generated, reader.read(pictures))
    truncated = factor_report(G, num=12, reader=reader, truncation_psi=0)
    assert truncated.factors[NAMES.index("skin")].spread < 1e-3


def test_files_hold_the_numbers_and_a_picture(redrawn, tmp_path):
    table, picture = redrawn.write(tmp_path / "new", {"network": "demo", "truncation_psi": 1.0})
    values = json.loads(table.read_text())
    assert values["settings"]["network"] == "demo" and values["settings"]["num"] == 150
    assert values["settings"]["reader"]["num_portraits"] == 300
    assert list(values["factors"]) == NAMES and values["summary"] == redrawn.summary()
    assert values["factors"]["skin"]["spread"] == redrawn.factors[NAMES.index("skin")].spread
    assert "NaN" not in table.read_text()
    with Image.open(picture) as image:
        assert min(image.size) > 500
    assert sorted(path.name for path in table.parent.iterdir()) == ["factors.json", "factors.png"]


def test_a_plot_shows_other_readings_otherwise(redrawn, frozen, tmp_path):
    plot_factors(redrawn, tmp_path / "a.png")
    plot_factors(redrawn, tmp_path / "b.png")
    plot_factors(frozen, tmp_path / "c.png")
    pixels = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc"]
    assert np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])


def test_networks_that_cannot_make_portraits_are_refused(refuses, reader):
    with refuses("4-channel"):
        reader_config(tiny_generator("rgba"))
    with refuses("1-channel"):
        factor_report(tiny_generator("gray"), reader=reader)
    with refuses("--num"):
        factor_report(tiny_generator(), num=1, reader=reader)
    assert reader_config(tiny_generator("non-square"), seed=3).size == (24, 32)
