import pytest
from tiny_generators import tiny_generator
from tiny_pictures import write_pictures

from styleforge.metrics import open_data, require_enough, require_measurable
from styleforge.metrics.pictures import GeneratedPictures
from styleforge.metrics.recipes import parse
from styleforge.metrics.requirements import num_real


@pytest.fixture
def data(tmp_path):
    return open_data(write_pictures(tmp_path / "real.zip", 10), tiny_generator(), mirror=True)


@pytest.mark.parametrize(
    ("name", "count"),
    [("fid0.005k", 5), ("fid50k", 20), ("fid50k_full", 10), ("kid0.015k", 15), ("pr50k3_full", 10), ("is50k", 0)],
)
def test_real_pictures_are_counted_with_their_mirror_images_but_in_full_metrics(data, name, count):
    assert num_real(parse(name), data) == count


def test_a_dataset_that_is_open_stays_what_it_is(data):
    assert open_data(data, tiny_generator()) is data
    assert open_data(None, tiny_generator()) is None


@pytest.mark.parametrize(("name", "least"), [("fid0.02k", 2), ("pr0.02k3", 4), ("is0.019k", 20)])
def test_too_few_pictures_are_refused(tmp_path, refuses, name, least):
    one = open_data(write_pictures(tmp_path / "one.zip", 1), tiny_generator())
    with refuses(name, f"at least {least}"):
        require_enough(parse(name), one)


def test_path_lengths_are_those_of_the_whole_latent_space(data, refuses):
    recipe = parse("ppl1k2_wend")
    require_measurable(recipe, GeneratedPictures(tiny_generator(), seed=0, labels=data))
    with refuses("--trunc"):
        require_measurable(recipe, GeneratedPictures(tiny_generator(), seed=0, truncation_psi=0.9))
    with refuses("--lod"):
        require_measurable(recipe, GeneratedPictures(tiny_generator("config-a"), seed=0, lod=0.5))
