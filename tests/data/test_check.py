import numpy as np
import pytest
from small_datasets import encode, random_pictures, with_labels, write_folder, write_lmdb, write_zip

from styleforge.data.check import check

FILES = {name: encode(pixels) for name, pixels in random_pictures([f"{i}.png" for i in range(5)], (16, 16, 3)).items()}


def test_a_sound_dataset_has_no_problems(tmp_path):
    for path in (
        write_folder(tmp_path / "f", FILES),
        write_zip(tmp_path / "f.zip", FILES),
        write_lmdb(tmp_path / "l", FILES),
    ):
        report = check(path)
        assert (report.count, report.sizes, report.modes, report.channels) == (5, {(16, 16): 5}, {"RGB": 5}, {3: 5})
        assert report.is_uniform
        assert report.is_legal
        assert report.nearest_legal == (16, 16)
        assert (report.problems, report.warnings, report.remedy) == ([], [], None)
    assert report.kind == "LMDB"


def test_sizes_modes_and_broken_files_are_counted(tmp_path):
    extra = {
        "a.png": encode(np.zeros((16, 16), np.uint8)),
        "b.png": encode(np.zeros((16, 20, 4), np.uint8)),
        "c.jpg": b"no picture",
        "d.png": FILES["0.png"][:300],
    }
    report = check(write_folder(tmp_path / "f", FILES | extra))
    assert report.count == 9
    assert report.sizes == {(16, 16): 6, (16, 20): 1}
    assert report.modes == {"RGB": 5, "L": 1, "RGBA": 1}
    assert report.channels == {3: 5, 1: 1, 4: 1}
    assert set(report.broken) == {"c.jpg", "d.png"}
    assert "not a picture" in report.broken["c.jpg"]
    assert not report.is_uniform
    assert len(report.problems) == 3
    assert report.remedy.endswith("--transform=center-crop --resolution=16x16")


def test_equal_pixels_are_duplicates_whatever_the_file(tmp_path):
    pixels = random_pictures(["x"], (16, 16, 3))["x"]
    flat = np.zeros((16, 16), np.uint8)
    files = {"a.png": encode(pixels), "b.bmp": encode(pixels, format="bmp"), "c.png": encode(pixels[::-1].copy())}
    files |= {"d.png": encode(flat), "e.png": encode(flat.reshape(8, 32))}
    report = check(write_folder(tmp_path / "f", files))
    assert report.duplicates == [["a.png", "b.bmp"]]
    assert report.warnings == ["1 of 5 pictures are copies of others, pixel for pixel."]


def test_an_illegal_size_is_a_problem_with_a_remedy(tmp_path):
    report = check(write_folder(tmp_path / "f", {"a.png": encode(np.zeros((100, 150, 3), np.uint8))}))
    assert not report.is_legal
    assert report.nearest_legal == (96, 160)
    assert "Networks cannot make 100×150 (height×width); the nearest legal sizes are 96×160" in report.problems[0]
    assert "--resolution=160x96" in report.remedy


def test_classes_are_balanced_and_labels_checked(tmp_path):
    labels = [["0.png", 2], ["1.png", 0], ["2.png", 2]]
    report = check(write_zip(tmp_path / "a.zip", with_labels(FILES, labels)))
    assert (report.label_kind, report.classes) == ("class", {"0": 1, "1": 0, "2": 2})
    assert report.unlabelled == ["3.png", "4.png"]
    assert not report.labels_complete
    assert len(report.warnings) == 2
    assert not report.problems
    whole = check(write_zip(tmp_path / "b.zip", with_labels(FILES, [[name, [1, 2]] for name in FILES])))
    assert whole.labels_complete
    assert (whole.label_kind, whole.classes) == ("vector", {})
    mixed = check(write_zip(tmp_path / "c.zip", with_labels(FILES, [["0.png", 1], ["1.png", [1]]])))
    assert not mixed.labels_complete
    assert "labels are mixed" in mixed.warnings[0]
    folders = check(write_folder(tmp_path / "f", {"cat/1.png": FILES["1.png"], "dog/2.png": FILES["2.png"]}))
    assert folders.classes == {"cat": 1, "dog": 1}


def test_nothing_but_broken_files_is_reported_too(tmp_path):
    report = check(write_folder(tmp_path / "f", {"a.png": b"x"}))
    assert (report.sizes, report.nearest_legal, report.remedy) == ({}, None, None)
    assert report.problems == ["1 of 1 pictures are broken."]


def test_progress_counts_up_to_all(tmp_path):
    steps = []
    check(write_folder(tmp_path / "f", FILES), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 5) for i in range(1, 6)]


def test_what_is_no_dataset_is_said(tmp_path):
    with pytest.raises(ValueError, match="without pictures"):
        check(tmp_path)


def test_the_shared_photos_are_ready(shared_zip):
    report = check(shared_zip)
    assert report.count == 512
    assert not report.problems
    assert report.labels_complete
    assert sum(report.classes.values()) == 512
    assert len(report.classes) == 20
