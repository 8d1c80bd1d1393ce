import numpy as np
import pytest
import torch
from tiny_generators import tiny_generator
from tiny_pictures import write_pictures

from styleforge.data import ImageDataset
from styleforge.metrics import draws
from styleforge.metrics.pictures import GeneratedPictures, RealPictures


def pictures(kind="square", **arguments):
    return GeneratedPictures(tiny_generator(kind), **{"seed": 0} | arguments)


def test_a_picture_follows_from_seed_and_number_alone():
    whole = pictures()(range(6))
    apart = torch.cat([pictures(batch=1)([i]) for i in range(6)])
    assert (whole.int() - apart.int()).abs().max() <= 1
    assert not torch.equal(pictures(seed=1)(range(6)), whole)
    assert whole.dtype == torch.uint8 and len({picture.numpy().tobytes() for picture in whole}) == 6


def test_noise_is_random_and_no_two_pictures_share_it():
    G = tiny_generator()
    same_w = GeneratedPictures(G, seed=0, transform=lambda ws: ws[:1].expand_as(ws), transform_name="same")
    a, b = same_w([0, 1])
    assert not torch.equal(a, b)
    fixed = GeneratedPictures(tiny_generator("no-noise"), seed=0, transform=lambda ws: ws[:1].expand_as(ws))
    a, b = fixed([0, 1])
    assert (a.int() - b.int()).abs().max() <= 1


def test_truncation_0_gives_the_mean_picture():
    G = tiny_generator("no-noise")
    a, b = GeneratedPictures(G, seed=0, truncation_psi=0.0)([0, 7])
    assert (a.int() - b.int()).abs().max() <= 1


def test_labels_are_those_of_random_entries_of_the_dataset(tmp_path):
    write_pictures(tmp_path / "a.zip", 40, classes=lambda i: 0 if i < 10 else 2, num_classes=3)
    dataset = ImageDataset(tmp_path / "a.zip", use_labels=True)
    classes = pictures("conditional", labels=dataset).c(range(2000)).argmax(1)
    np.testing.assert_allclose(classes.bincount(minlength=3) / 2000, [0.25, 0, 0.75], atol=0.04)
    assert torch.equal(pictures("conditional", labels=dataset).c([5, 900]).argmax(1), classes[[5, 900]])


def test_without_a_dataset_classes_are_equally_frequent():
    counts = pictures("conditional").c(range(3000)).sum(0)
    assert counts.sum() == 3000 and (counts / 1000 - 1).abs().max() < 0.1
    assert pictures().c(range(3)) is None


def test_keys_tell_pictures_apart_but_for_the_batch():
    keys = [
        pictures().key,
        pictures(seed=1).key,
        pictures(truncation_psi=0.7).key,
        pictures(transform=lambda ws: ws, transform_name="x").key,
        pictures("gray").key,
    ]
    assert len(set(keys)) == 5
    assert pictures(batch=3).key == keys[0]
    G = tiny_generator()
    G.w_avg.add_(1)
    assert GeneratedPictures(G, seed=0).key != keys[0]


def test_pixels_that_are_not_finite_are_refused_by_number(refuses):
    def breaks(ws):
        ws[2] = float("nan")
        return ws

    with refuses("picture 12", "not finite"):
        pictures(transform=breaks)([10, 11, 12])


def test_real_pictures_come_in_one_shuffled_order(tmp_path):
    write_pictures(tmp_path / "a.zip", 30)
    dataset = ImageDataset(tmp_path / "a.zip")
    reals = RealPictures(dataset)
    assert sorted(reals.order) == list(range(30)) and list(reals.order) != list(range(30))
    assert torch.equal(reals([4, 0]), torch.stack([dataset[int(reals.order[i])][0] for i in (4, 0)]))
    assert RealPictures(dataset).key == reals.key
    write_pictures(tmp_path / "b.zip", 31)
    assert RealPictures(ImageDataset(tmp_path / "b.zip")).key != reals.key


@pytest.mark.parametrize("stream", ["IMAGES", "LABELS", "NOISE"])
def test_streams_have_names(stream):
    assert isinstance(getattr(draws, stream), int)
