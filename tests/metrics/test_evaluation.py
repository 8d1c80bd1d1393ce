"""`evaluate` and `measure` with the stand-in extractor; the published ones are tested in tests/features."""

import os
import time
import warnings

import numpy as np
import pytest
import torch
from processes import run_ranks
from tiny_generators import tiny_generator
from tiny_pictures import write_pictures

from styleforge import dist
from styleforge.data import ImageDataset
from styleforge.features import load_distance, load_extractor
from styleforge.metrics import Tools, evaluate, forget, measure, open_data
from styleforge.metrics.fid import frechet_distance
from styleforge.metrics.kid import kernel_distance
from styleforge.metrics.pictures import GeneratedPictures, RealPictures
from styleforge.metrics.ppl import path_length, path_length_distances
from styleforge.metrics.precision_recall import precision_recall

NAMES = "fid0.06k_full,kid0.06k,pr0.05k3,is0.06k,ppl0.02k2_wend"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "metrics"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("data") / "real.zip", 70)


def test_numbers_are_those_of_the_pictures_put_together_by_hand(data):
    found = evaluate(tiny_generator(), data, NAMES, "random-vgg", seed=3)
    extractor, G = load_extractor("random-vgg"), tiny_generator()
    fake = extractor(GeneratedPictures(G, seed=3, batch=60)(range(60))).features.double()
    real = extractor(RealPictures(ImageDataset(data))(range(70))).features.double()
    fid = frechet_distance(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())
    assert found["fid0.06k_full@random-vgg"] == pytest.approx(fid, rel=1e-6)
    with pytest.warns(UserWarning, match="subsets of 60"):
        kid, _ = kernel_distance(fake, real[:60], seed=3)
    assert found["kid0.06k@random-vgg"] == pytest.approx(kid, rel=1e-5)
    precision, recall = precision_recall(real[:50], fake[:50])
    assert found["pr0.05k3_precision@random-vgg"] == precision
    assert found["pr0.05k3_recall@random-vgg"] == recall
    ppl = path_length(path_length_distances(G, load_distance("random-vgg"), num_samples=20, seed=3))
    assert found["ppl0.02k2_wend@random-vgg"] == pytest.approx(ppl, rel=1e-3)  # of float32, over a step of 1e-4
    assert found["is0.06k_mean@random-vgg"] >= 1 and found["is0.06k_std@random-vgg"] >= 0


def test_the_same_seed_gives_the_same_digits_and_another_batch_nearly_so(data):
    names = "fid0.06k_full,kid0.06k,pr0.05k3,ppl0.01k2_wend"
    first = evaluate(tiny_generator(), data, names, "random-vgg")
    assert evaluate(tiny_generator(), data, names, "random-vgg") == first
    for batch in (1, 7):
        again = evaluate(tiny_generator(), data, names, "random-vgg", batch=batch)
        assert again == pytest.approx(first, rel=1e-5)  # pictures round differently, and KID is a small difference
    assert evaluate(tiny_generator(), data, names, "random-vgg", seed=1) != first


def shared(data):
    with dist.Group(torch.device("cpu")):
        return evaluate(tiny_generator(), data, "fid1.1k_full,pr0.7k3,ppl0.6k2_wend", "random-vgg")


def test_two_processes_get_what_one_gets(tmp_path_factory):
    data = write_pictures(tmp_path_factory.mktemp("data") / "real.zip", 600)
    (one,) = run_ranks(shared, 1, data)
    first, second = run_ranks(shared, 2, data)
    assert first == second == pytest.approx(one, rel=1e-9)


def test_real_pictures_are_looked_at_once_and_generated_ones_leave_nothing(data, cache, monkeypatch):
    evaluate(tiny_generator(), data, "fid0.05k_full", "random-vgg")
    assert [path.name.partition("-")[0] for path in cache.iterdir()] == ["real"]
    monkeypatch.setattr(RealPictures, "__call__", lambda self, indices: pytest.fail("they are in the cache"))
    evaluate(tiny_generator(), data, "fid0.05k_full", "random-vgg", seed=1)


def test_a_killed_evaluation_goes_on(data, cache, monkeypatch):
    whole = evaluate(tiny_generator(), data, "fid1.1k_full", "random-vgg")
    monkeypatch.setattr("styleforge.metrics.collect.SAVE_SEC", -1.0)
    made = GeneratedPictures.__call__

    def dies(self, indices):
        if indices[0] >= 512:
            raise KeyboardInterrupt
        return made(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(GeneratedPictures, "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            evaluate(tiny_generator(), data, "fid1.1k_full", "random-vgg")

    def goes_on(self, indices):
        assert indices[0] >= 512
        return made(self, indices)

    monkeypatch.setattr(GeneratedPictures, "__call__", goes_on)
    assert evaluate(tiny_generator(), data, "fid1.1k_full", "random-vgg") == whole


def test_numbers_that_are_kept_are_found_again_until_they_are_forgotten(data, cache, monkeypatch):
    def pictures(seed=0):
        return GeneratedPictures(tiny_generator(), seed=seed, labels=ImageDataset(data))

    names, tools = "fid0.06k,ppl0.02k2_wend", Tools(extractor="random-vgg")
    first = measure(pictures(), names, tools, keep=True)
    (folder,) = cache.glob("generated-*")
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"measured"}  # and no features
    with monkeypatch.context() as patch:
        patch.setattr(GeneratedPictures, "__call__", lambda self, indices: pytest.fail("its number is known"))
        patch.setattr(RealPictures, "__call__", lambda self, indices: pytest.fail("its number is known"))
        assert measure(pictures(), names, tools) == first
    assert measure(pictures(1), names, tools) != first
    forget(pictures())
    assert not folder.exists()
    forget(pictures())


def test_evaluations_of_the_same_pictures_leave_each_others_files(data, cache):
    pictures = GeneratedPictures(tiny_generator(), seed=0, labels=ImageDataset(data))
    (folder,) = [cache / f"generated-{pictures.key[:24]}"]
    folder.mkdir(parents=True)
    (folder / "other-rows9.npy").write_bytes(b"")
    measure(pictures, "fid0.06k", Tools(extractor="random-vgg"))
    assert [path.name for path in folder.iterdir()] == ["other-rows9.npy"]


def test_what_killed_evaluations_left_goes_after_a_week(data, cache):
    for days in (6, 8):
        folder = cache / f"generated-{days}"
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - days * 24 * 60 * 60,) * 2)
    evaluate(tiny_generator(), data, "fid0.06k", "random-vgg")
    assert [path.name for path in cache.glob("generated-*")] == ["generated-6"]


def fails_on_one_rank(data):
    G = tiny_generator()
    with dist.Group(torch.device("cpu")):
        if dist.rank() == 1:
            G.synthesis.noise_inputs()[0].strength.fill_(float("nan"))
        return evaluate(G, data, "fid1.1k", "random-vgg")


def test_an_error_of_one_process_is_said_by_all(data):
    for error in run_ranks(fails_on_one_rank, 2, data):
        assert isinstance(error, ValueError) and "not finite" in str(error)


def test_mirror_images_count_but_in_full_metrics(data):
    G = tiny_generator()
    mirrored = GeneratedPictures(G, seed=0, labels=open_data(data, G, mirror=True))
    fid, kid, full = measure(mirrored, "fid0.12k,kid0.12k,fid0.12k_full", Tools(extractor="random-vgg"))
    assert [(m.num_real, m.mirror) for m in (fid, kid, full)] == [(120, True), (120, True), (70, False)]
    plain = evaluate(G, data, "fid0.12k,fid0.12k_full", "random-vgg")
    assert full.results["fid0.12k_full@random-vgg"] == plain["fid0.12k_full@random-vgg"]
    assert fid.results["fid0.12k@random-vgg"] != plain["fid0.12k@random-vgg"]


def test_labels_are_the_same_with_mirror_images(tmp_path):
    G = tiny_generator("conditional")
    data = write_pictures(tmp_path / "a.zip", 30, classes=lambda i: i % 3, num_classes=3)
    plain, mirrored = (
        GeneratedPictures(G, seed=0, labels=open_data(data, G, mirror=mirror)).c(range(50)) for mirror in (False, True)
    )
    assert torch.equal(plain, mirrored)


def test_memory_that_runs_out_is_said(data):
    class Greedy(torch.nn.Module):
        def forward(self, images_uint8):
            if len(images_uint8) > 1:  # not when its features are counted
                torch.empty(1 << 50)
            return images_uint8.float().mean([2, 3])

    with pytest.raises(MemoryError, match="--batch"):
        evaluate(tiny_generator(), data, "fid0.06k", Greedy())


def test_an_inception_score_without_classes_is_refused_before_any_work(data, cache, refuses):
    class Mean(torch.nn.Module):
        def forward(self, images_uint8):
            return images_uint8.float().mean([2, 3])

    with refuses("inception score", "Mean", "classes"):
        evaluate(tiny_generator(), data, "fid0.06k,is0.06k", Mean())
    assert not cache.exists()


def other_weights(data):
    torch.manual_seed(int(os.environ["RANK"]))
    module = torch.nn.Sequential(ToFloat(), torch.nn.Linear(768, 3))
    with dist.Group(torch.device("cpu")):
        return evaluate(tiny_generator(), data, "fid0.06k", module)


class ToFloat(torch.nn.Module):
    def forward(self, images_uint8):
        return torch.nn.functional.adaptive_avg_pool2d(images_uint8.float(), 16).flatten(1)


def test_ranks_with_other_extractors_are_refused(data):
    for error in run_ranks(other_weights, 2, data):
        assert isinstance(error, ValueError) and "every machine" in str(error)


def test_notes_are_told_whatever_filters_a_program_has(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (kid,) = measure(
            GeneratedPictures(tiny_generator(), seed=0, labels=ImageDataset(data)),
            "kid0.08k",
            Tools(extractor="random-vgg"),
        )
    assert any("subsets of 70" in note for note in kid.notes)


def test_how_a_number_came_about_is_told(data):
    pictures = GeneratedPictures(tiny_generator(), seed=5, labels=ImageDataset(data), truncation_psi=0.7)
    (fid, kid) = measure(pictures, "fid0.08k,kid0.08k", Tools(extractor="random-vgg"))
    assert (fid.metric, fid.num_generated, fid.num_real, fid.seed) == ("fid0.08k@random-vgg", 80, 70, 5)
    assert (fid.extractor, fid.truncation_psi, len(fid.extractor_checksum)) == ("random-vgg", 0.7, 64)
    assert any("70 pictures, fewer than 80" in note for note in fid.notes)
    assert any("subsets of 70" in note for note in kid.notes)


@pytest.mark.parametrize("kind", ["gray", "rgba", "conditional", "config-a", "non-square"])
def test_every_kind_of_generator_is_measured(kind, tmp_path):
    G = tiny_generator(kind)
    classes = (lambda i: i % 3) if G.c_dim else None
    if kind == "non-square":
        data = None
        names = "is0.02k,ppl0.02k2_wend"
    else:
        data = write_pictures(tmp_path / "a.zip", 30, channels=G.img_channels, classes=classes, num_classes=3)
        names = "fid0.02k_full,ppl0.02k2_wend"
    found = evaluate(G, data, names, "random-vgg")
    assert np.isfinite(list(found.values())).all() and len(found) >= 2


def test_a_network_of_the_user_measures_under_its_own_name(data):
    class Mean(torch.nn.Module):
        def forward(self, images_uint8):
            return images_uint8.float().mean([2, 3])

    found = evaluate(tiny_generator(), data, ["fid0.06k_full"], Mean())
    assert list(found) == ["fid0.06k_full@Mean"]
    real = RealPictures(ImageDataset(data))(range(70)).double().mean([2, 3])
    fake = GeneratedPictures(tiny_generator(), seed=0, batch=60)(range(60)).double().mean([2, 3])
    expected = frechet_distance(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())
    assert found["fid0.06k_full@Mean"] == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_measured_is_refused_before_any_work(data, tmp_path, refuses, cache):
    G = tiny_generator()
    with refuses("no dataset", "--data"):
        evaluate(G, None, "fid0.1k", "random-vgg")
    with refuses("2 generated pictures", "at least 4"):
        evaluate(G, data, "pr0.002k3", "random-vgg")
    with refuses("is0.019k", "19 generated pictures", "at least 20"):
        evaluate(G, None, "is0.019k", "random-vgg")
    one = write_pictures(tmp_path / "one.zip", 1)
    with refuses("1 pictures in", "at least 2"):
        evaluate(G, one, "fid0.1k", "random-vgg")
    with refuses("16×16 with 1 channels", "16×16 with 3 channels"):
        evaluate(G, write_pictures(tmp_path / "gray.zip", 3, channels=1), "fid0.1k", "random-vgg")
    with refuses("--extractor", "'nonsense'"):
        evaluate(G, data, "fid0.1k", "nonsense")
    with refuses("--trunc", "changed latents"):
        measure(GeneratedPictures(G, seed=0, truncation_psi=0.5), "ppl1k2_wend", Tools(extractor="random-vgg"))
    assert not cache.exists()


def test_pictures_that_are_not_finite_are_no_number(data, refuses):
    G = tiny_generator()
    G.synthesis.noise_inputs()[0].strength.fill_(float("nan"))
    with refuses("not finite", "snapshot"):
        evaluate(G, data, "fid0.06k", "random-vgg")


def shared_twice(data):
    with dist.Group(torch.device("cpu")):
        return evaluate(tiny_generator(), data, "ppl0.01k2_wend,ppl0.010k2_wend", "random-vgg")


def test_processes_agree_on_what_was_complete_before(data):
    first, second = run_ranks(shared_twice, 2, data)
    assert first == second and len(set(first.values())) == 1


def test_path_lengths_of_a_growing_network_are_refused(refuses):
    with refuses("level of detail 1", "--lod"):
        measure(
            GeneratedPictures(tiny_generator("config-a"), seed=0, lod=1.0), "ppl1k2_wend", Tools(extractor="random-vgg")
        )
