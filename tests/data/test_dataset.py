import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from small_datasets import encode, random_pictures, with_labels, write_folder, write_lmdb, write_zip

from styleforge.data import ImageDataset
from styleforge.data.dataset import subset

PICTURES = random_pictures([f"{folder}/{i}.png" for folder in ("cat", "dog") for i in range(4)])
FILES = {name: encode(pixels) for name, pixels in PICTURES.items()}
VECTORS = with_labels(FILES, [[name, [i, i / 2]] for i, name in enumerate(FILES)])


def test_every_kind_of_source_gives_the_same_tensors_and_labels(tmp_path):
    paths = [
        write_folder(tmp_path / "folder", VECTORS),
        write_zip(tmp_path / "stored.zip", VECTORS),
        write_zip(tmp_path / "deflated.zip", VECTORS, zipfile.ZIP_DEFLATED),
        write_lmdb(tmp_path / "lmdb", VECTORS),
    ]
    for path in paths:
        for cache in (False, True):
            dataset = ImageDataset(path, use_labels=True, cache=cache)
            assert len(dataset) == 8
            assert dataset.name == path.name.removesuffix(".zip")
            assert (dataset.resolution, dataset.img_channels) == ((16, 8), 3)
            assert (dataset.c_dim, dataset.label_kind) == (2, "vector")
            for i, name in enumerate(sorted(FILES)):
                image, label = dataset[i]
                assert (image.dtype, image.shape, label.dtype) == (torch.uint8, (3, 16, 8), torch.float32)
                assert (image.numpy() == PICTURES[name].transpose(2, 0, 1)).all()
                assert label.tolist() == [i, i / 2]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_channels_are_kept(tmp_path, mode):
    image = Image.fromarray(random_pictures(["x"], (8, 8, 4))["x"]).convert(mode)
    write_folder(tmp_path, {"a.png": encode(np.asarray(image))})
    dataset = ImageDataset(tmp_path)
    assert dataset.img_channels == len(mode)
    assert (dataset[0][0].numpy() == np.asarray(image).reshape(8, 8, -1).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("cache", [False, True])
def test_mirror_doubles_the_entries(tmp_path, cache):
    dataset = ImageDataset(write_zip(tmp_path / "a.zip", VECTORS), mirror=True, use_labels=True, cache=cache)
    assert len(dataset) == 16
    for i in range(8):
        assert torch.equal(dataset[i + 8][0], dataset[i][0].flip(2))
        assert torch.equal(dataset[i + 8][1], dataset[i][1])
        assert torch.equal(dataset.label(i + 8), dataset.label(i))
    with pytest.raises(IndexError):
        dataset[16]


def test_a_cached_picture_may_be_changed_by_its_user(tmp_path):
    dataset = ImageDataset(write_zip(tmp_path / "a.zip", FILES), cache=True)
    dataset[0][0].zero_()
    assert dataset[0][0].any()


def test_folders_give_one_hot_labels_only_when_wanted(tmp_path):
    path = write_folder(tmp_path / "f", FILES)
    assert ImageDataset(path).c_dim == 0
    assert ImageDataset(path).label(0).shape == (0,)
    assert ImageDataset(path).has_labels
    dataset = ImageDataset(path, use_labels=True)
    assert (dataset.c_dim, dataset.label_kind, dataset.class_names) == (2, "class", ("cat", "dog"))
    assert torch.stack([dataset.label(i) for i in range(8)]).tolist() == [[1, 0]] * 4 + [[0, 1]] * 4


def test_a_subset_is_random_ordered_and_keeps_its_labels(tmp_path):
    path = write_zip(tmp_path / "a.zip", VECTORS)
    dataset = ImageDataset(path, max_images=3, subset_seed=1, use_labels=True)
    assert dataset.names == sorted(dataset.names)
    order = np.arange(8)
    np.random.RandomState(1).shuffle(order)  # as the official release chooses
    assert [int(dataset.label(i)[0]) for i in range(3)] == sorted(order[:3])
    assert ImageDataset(path, max_images=100).names == sorted(FILES)
    assert subset("abc", 3) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="--max-images: got 0"):
        ImageDataset(path, max_images=0)


def test_content_hash_follows_pictures_labels_and_selection(tmp_path):
    path = write_zip(tmp_path / "a.zip", VECTORS)
    same = write_zip(tmp_path / "b.zip", VECTORS, zipfile.ZIP_DEFLATED)
    assert ImageDataset(path).content_hash() == ImageDataset(same).content_hash()
    changed = write_zip(tmp_path / "c.zip", VECTORS | {"cat/1.png": FILES["cat/2.png"]})
    relabelled = write_zip(tmp_path / "d.zip", with_labels(FILES, [[name, [1, 1]] for name in FILES]))
    hashes = {
        ImageDataset(path).content_hash(),
        ImageDataset(path, mirror=True).content_hash(),
        ImageDataset(path, max_images=4).content_hash(),
        ImageDataset(path, max_images=4, subset_seed=3).content_hash(),
        ImageDataset(path, use_labels=True).content_hash(),
        ImageDataset(relabelled, use_labels=True).content_hash(),
        ImageDataset(changed).content_hash(),
    }
    assert len(hashes) == 7
    for folder in (write_folder(tmp_path / "f", FILES), write_lmdb(tmp_path / "f_lmdb", FILES)):
        assert ImageDataset(folder).content_hash() == ImageDataset(folder).content_hash()


@pytest.mark.parametrize("cache", [False, True])
def test_a_pickled_dataset_is_the_same(tmp_path, cache):
    dataset = ImageDataset(write_zip(tmp_path / "a.zip", VECTORS), use_labels=True, cache=cache)
    copy = pickle.loads(pickle.dumps(dataset))
    for i in range(len(dataset)):
        assert torch.equal(copy[i][0], dataset[i][0])
        assert torch.equal(copy[i][1], dataset[i][1])


def test_another_resolution_than_wanted_is_said(tmp_path):
    path = write_folder(tmp_path / "f", FILES)
    assert ImageDataset(path, resolution=(16, 8)).resolution == (16, 8)
    with pytest.raises(ValueError, match=r"got pictures of 16×8 .* expected 32×32; .* --resolution=32x32"):
        ImageDataset(path, resolution=32)


@pytest.mark.parametrize("cache", [False, True])
def test_mixed_sizes_are_said_with_both_files(tmp_path, cache):
    path = write_folder(tmp_path / "f", FILES | {"z.png": encode(np.zeros((9, 7, 3), np.uint8))})
    with pytest.raises(
        ValueError, match=r"z\.png in .*: got 9×7 .* with 3 channels, expected 16×8 .* with 3 channels"
    ) as e:
        ImageDataset(path, cache=cache)[8]
    assert "like cat/0.png" in str(e.value)
    assert f"`styleforge data pack {path} DEST --resolution=8x16`" in str(e.value)


def test_mixed_channels_are_said(tmp_path):
    path = write_folder(tmp_path / "f", FILES | {"z.png": encode(np.zeros((16, 8), np.uint8))})
    with pytest.raises(ValueError, match=r"z\.png in .*: got 16×8 .* with 1 channel, expected 16×8 .* with 3 channels"):
        ImageDataset(path)[8]


def test_a_broken_picture_is_named(tmp_path):
    path = write_folder(tmp_path / "f", FILES | {"z.png": FILES["cat/0.png"][:200]})
    with pytest.raises(ValueError, match=r"z\.png in .*: broken picture \(.*\); `styleforge data check"):
        ImageDataset(path)[8]


def test_labels_that_are_absent_incomplete_or_mixed_are_said(tmp_path):
    no_labels = write_zip(tmp_path / "a.zip", with_labels(FILES, None))
    assert not ImageDataset(no_labels).has_labels
    with pytest.raises(ValueError, match="--cond wants labels, but there are none"):
        ImageDataset(no_labels, use_labels=True)
    incomplete = write_zip(tmp_path / "b.zip", with_labels(FILES, [["cat/0.png", 1]]))
    with pytest.raises(ValueError, match=r"--cond .* but 7 of 8 have none, such as cat/1\.png"):
        ImageDataset(incomplete, use_labels=True)
    mixed = write_zip(tmp_path / "c.zip", with_labels(FILES, [["cat/0.png", 1], ["cat/1.png", [1]]]))
    with pytest.raises(ValueError, match="labels are mixed"):
        ImageDataset(mixed, use_labels=True)


def test_shared_photos_load_and_count(shared_zip):
    dataset = ImageDataset(shared_zip, use_labels=True, cache=True)
    assert (len(dataset), dataset.resolution, dataset.img_channels) == (512, (64, 64), 3)
    assert (dataset.c_dim, dataset.label_kind) == (20, "class")
    labels = torch.stack([dataset.label(i) for i in range(len(dataset))])
    assert (labels.sum(1) == 1).all()
    assert (labels.sum(0) > 0).all()
    images = torch.stack([dataset[i][0] for i in range(len(dataset))]).float()
    assert 80 < images.mean() < 170
    assert images.std() > 40
