import json

import pytest
import torch
from PIL import Image
from tiny_generators import tiny_generator

from styleforge.metrics import Tools
from styleforge.metrics.per_image import per_image_report
from styleforge.metrics.pictures import GeneratedPictures
from styleforge.metrics.ppl import per_image_path_lengths


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    pictures = GeneratedPictures(tiny_generator(), seed=2)
    return per_image_report(pictures, Tools(extractor="random-vgg"), 30, cache=tmp_path_factory.mktemp("cache"))


def test_each_picture_has_its_own_length(report):
    G, tools = tiny_generator(), Tools(extractor="random-vgg")
    pictures = GeneratedPictures(G, seed=2)
    from styleforge.metrics import draws

    z = draws.draw_z(2, [7], G.z_dim, stream=draws.IMAGES)
    alone = per_image_path_lengths(G, tools.distance_for_paths(), G.mapping(z, pictures.c([7])), seed=2, indices=[7])
    assert report.lengths.shape == (30,) and float(alone) == pytest.approx(float(report.lengths[7]), rel=0.02)


def test_grids_show_the_ends_of_the_ranking(report, tmp_path):
    assert len(report.lowest) == len(report.highest) == 3
    assert not torch.equal(report.lowest[0], report.highest[0])
    paths = report.write(tmp_path)
    assert [path.name for path in paths] == [
        "per-image-ppl.json", "per-image-ppl.png", "per-image-ppl-lowest.png", "per-image-ppl-highest.png",
    ]  # fmt: skip
    assert len(json.loads(paths[0].read_text())["lengths"]) == 30
    assert all(Image.open(path).size[0] > 10 for path in paths[1:])
    assert "@random-vgg of 30 pictures" in report.summary()


def test_fewer_than_ten_pictures_have_no_tenth(refuses):
    with refuses("9 pictures", "--per-image-ppl"):
        per_image_report(GeneratedPictures(tiny_generator(), seed=0), Tools(extractor="random-vgg"), 9)
