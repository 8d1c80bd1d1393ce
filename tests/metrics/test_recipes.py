import pytest

from styleforge.metrics.recipes import NAMES, parse, parse_list


@pytest.mark.parametrize(
    ("name", "num", "max_real", "k"),
    [
        ("fid50k_full", 50000, None, 3),
        ("kid50k_full", 50000, 1_000_000, 3),
        ("pr50k3_full", 50000, 200_000, 3),
        ("fid50k", 50000, 50000, 3),
        ("kid10k", 10000, 10000, 3),
        ("pr5k4", 5000, 5000, 4),
        ("fid2.5k_full", 2500, None, 3),
        ("fid_quick", 5000, 5000, 3),
        ("is50k", 50000, 0, 3),
    ],
)
def test_names_have_the_fields_meaning(name, num, max_real, k):
    recipe = parse(name)
    assert (recipe.name, recipe.num, recipe.max_real, recipe.k) == (name, num, max_real, k)
    assert name.startswith(recipe.kind)


@pytest.mark.parametrize(
    ("name", "num", "space", "sampling", "crop"),
    [
        ("ppl2_wend", 50000, "w", "end", False),
        ("ppl_wend", 50000, "w", "end", True),
        ("ppl_wfull", 50000, "w", "full", True),
        ("ppl_zend", 50000, "z", "end", True),
        ("ppl_zfull", 50000, "z", "full", True),
        ("ppl10k2_wend", 10000, "w", "end", False),
    ],
)
def test_path_lengths_have_a_space_a_place_and_a_crop(name, num, space, sampling, crop):
    recipe = parse(name)
    assert (recipe.kind, recipe.num, recipe.space, recipe.sampling, recipe.crop) == ("ppl", num, space, sampling, crop)
    assert recipe.max_real == 0


def test_every_listed_name_is_read():
    assert [recipe.name for recipe in parse_list(",".join(NAMES))] == list(NAMES)


def test_a_name_given_twice_counts_once():
    assert [recipe.name for recipe in parse_list(" fid5k, is5k,fid5k,")] == ["fid5k", "is5k"]


@pytest.mark.parametrize(
    "name", ["fid", "fid50", "fid50k_", "pr50k", "pr50k0", "ppl2", "ppl2_xend", "FID50k", "is50k_full"]
)
def test_other_names_are_refused(name, refuses):
    with refuses(repr(name), "fid50k_full", "--metrics"):
        parse(name)


def test_too_few_pictures_and_no_metric_are_refused(refuses):
    with refuses("1 pictures", "at least 2"):
        parse("fid0.001k")
    with refuses("none", "--metrics"):
        parse_list(",")
