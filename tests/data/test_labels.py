import json

import numpy as np
import pytest
from small_datasets import encode, random_pictures, with_labels, write_folder, write_zip

from styleforge.data.labels import is_sharded, labels_from_file, labels_from_folders, make_labels, read_labels
from styleforge.data.sources import open_source

FILES = {name: encode(pixels) for name, pixels in random_pictures(["cat/1.png", "dog/2.png", "cat/3.png"]).items()}


def test_classes_and_vectors_are_told_apart():
    classes = make_labels([("a", 2), ("b", 0), ("c", 1.0)], "x")
    assert (classes.kind, classes.size) == ("class", 3)
    assert classes.array(["c", "a"]).tolist() == [1, 2]
    vectors = make_labels([("a", [0.5, 1]), ("b", (2, 3))], "x")
    assert (vectors.kind, vectors.size) == ("vector", 2)
    assert np.array_equal(vectors.array(["b", "a"]), np.array([[2, 3], [0.5, 1]], np.float32))


@pytest.mark.parametrize("value", [-1, 0.5, "cat", None, True, [], ["x"], float("nan"), float("inf"), [float("inf")]])
def test_a_label_that_is_neither_is_said(value):
    with pytest.raises(ValueError, match="as label of a, expected a class index"):
        make_labels([("a", value)], "x")


def test_mixed_labels_are_said():
    with pytest.raises(ValueError, match="labels are mixed, b has a vector of 2 but a has a class index"):
        make_labels([("a", 1), ("b", [1, 2])], "x")
    with pytest.raises(ValueError, match="labels are mixed, b has a vector of 2 but a has a vector of 1"):
        make_labels([("a", [1]), ("b", [1, 2])], "x")


def test_folders_are_classes_in_sorted_order(tmp_path):
    for path in (write_folder(tmp_path / "f", FILES), write_zip(tmp_path / "f.zip", FILES)):
        labels = read_labels(open_source(path))
        assert labels.class_names == ("cat", "dog")
        assert labels.values == {"cat/1.png": 0, "dog/2.png": 1, "cat/3.png": 0}


def test_the_folder_that_all_share_is_no_class():
    labels = labels_from_folders(["data/train/cat/a/1.png", "data/train/dog/2.png"])
    assert labels.class_names == ("cat", "dog")
    assert labels_from_folders(["data/1.png", "data/2.png"]) is None
    assert labels_from_folders(["1.png", "cat/2.png"]) is None


def test_dataset_json_goes_before_folders(tmp_path):
    labelled = with_labels(FILES, [["cat/1.png", 4], ["dog/2.png", 1], ["cat\\3.png", 0]])
    labels = read_labels(open_source(write_folder(tmp_path / "f", labelled)))
    assert labels.values == {"cat/1.png": 4, "dog/2.png": 1, "cat/3.png": 0}
    assert read_labels(open_source(write_folder(tmp_path / "g", with_labels(FILES, None)))) is None


def test_names_of_classes_fix_their_number(tmp_path):
    content = {"labels": [[name, 0] for name in FILES], "classes": ["a", "b", "c"]}
    source = open_source(write_folder(tmp_path / "f", FILES | {"dataset.json": json.dumps(content).encode()}))
    assert read_labels(source).size == 3
    with pytest.raises(ValueError, match="got class 5, but only 2 names"):
        make_labels([("a", 5)], "x", ["p", "q"])


@pytest.mark.parametrize("content", [[["a.png", 1, 2]], "text", 5, [[1, 1]]])
def test_malformed_labels_are_said(tmp_path, content):
    source = open_source(write_folder(tmp_path / "f", with_labels(FILES, content)))
    with pytest.raises(ValueError, match=r'dataset\.json: expected \{"labels": '):
        read_labels(source)


def test_numbered_folders_are_shards():
    assert is_sharded(labels_from_folders(["00000/1.png", "00001/2.png"]))
    assert not is_sharded(labels_from_folders(["0/1.png", "1/2.png"]))


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("a.png,3\nb.png,0\n", "class", {"a.png": 3, "b.png": 0}),
        ("file,label\na.png, dog\nb.png, cat\n", "class", {"a.png": 1, "b.png": 0}),
        ("\ufeffa.png,0.5,1\n\nb.png,2,3\n", "vector", {"a.png": (0.5, 1.0), "b.png": (2.0, 3.0)}),
    ],
)
def test_csv_files_hold_classes_words_or_vectors(tmp_path, text, kind, values):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    labels = labels_from_file(tmp_path / "labels.csv")
    assert (labels.kind, labels.values) == (kind, values)


def test_json_files_hold_pairs_or_an_object(tmp_path):
    for content in ([["a.png", 3]], {"a.png": 3}):
        (tmp_path / "labels.json").write_text(json.dumps({"labels": content}))
        assert labels_from_file(tmp_path / "labels.json").values == {"a.png": 3}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "a.png\n", "got no label for a.png"),
        ("l.csv", "a.png,1,x\n", "several labels per picture must be numbers"),
        ("l.csv", "", "got no labels"),
        ("l.json", "{", "expected labels as JSON"),
        ("l.txt", "a.png 1", "expected .csv or .json"),
    ],
)
def test_unusable_label_files_are_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        labels_from_file(tmp_path / name)
