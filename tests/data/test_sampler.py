import itertools
import multiprocessing
import os
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from small_datasets import encode, random_pictures, with_labels, write_folder, write_lmdb, write_zip

from styleforge.data import ImageDataset, InfiniteSampler, batches

PICTURES = random_pictures([f"{i:02d}.png" for i in range(11)], (8, 8, 3))
FILES = with_labels(
    {name: encode(pixels) for name, pixels in PICTURES.items()}, [[name, [i]] for i, name in enumerate(PICTURES)]
)


def take(iterable, count):
    return list(itertools.islice(iterable, count))


def indices(stream, count):
    """Which entries a stream of batches gives, read from their labels."""
    return [labels[:, 0].int().tolist() for _, labels in take(stream, count)]


@pytest.fixture
def dataset(tmp_path):
    return ImageDataset(write_zip(tmp_path / "a.zip", FILES), use_labels=True)


def test_every_epoch_is_another_permutation():
    stream = take(InfiniteSampler(50, seed=3), 150)
    epochs = [stream[:50], stream[50:100], stream[100:]]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(50))


def test_the_seed_decides():
    assert take(InfiniteSampler(50, seed=3), 120) == take(InfiniteSampler(50, seed=3), 120)
    firsts = {tuple(take(InfiniteSampler(50, seed=seed), 50)) for seed in (0, 1, 2**32, 2**33)}
    assert len(firsts) == 4


def test_without_shuffling_the_order_is_that_of_the_dataset():
    assert take(InfiniteSampler(3, shuffle=False, start=1), 5) == [1, 2, 0, 1, 2]


def test_the_order_is_the_one_of_the_first_release():
    """Runs of older versions must go on with the same order; these numbers never change."""
    assert take(InfiniteSampler(10, seed=0), 20) == [0, 8, 9, 5, 6, 2, 7, 4, 3, 1, 1, 7, 3, 6, 4, 2, 8, 0, 9, 5]


@pytest.mark.parametrize("start", [1, 7, 10, 11, 12, 345])
def test_starting_later_gives_the_rest_of_the_stream(start):
    whole = take(InfiniteSampler(11, seed=5), start + 30)
    assert take(InfiniteSampler(11, seed=5, start=start), 30) == whole[start:]


def test_starting_very_late_is_immediate():
    assert sorted(take(InfiniteSampler(11, start=11 * 10**12), 11)) == list(range(11))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_processes_together_see_what_one_would(world_size):
    whole = take(InfiniteSampler(11, seed=5, start=9), 12 * world_size)
    shares = [
        take(InfiniteSampler(11, seed=5, start=9, rank=rank, world_size=world_size), 12) for rank in range(world_size)
    ]
    assert [index for step in zip(*shares, strict=True) for index in step] == whole


def test_a_run_may_go_on_with_another_number_of_processes():
    whole = take(InfiniteSampler(11, seed=5), 48)
    two = [take(InfiniteSampler(11, seed=5, rank=rank, world_size=2), 12) for rank in range(2)]
    three = [take(InfiniteSampler(11, seed=5, start=24, rank=rank, world_size=3), 8) for rank in range(3)]
    seen = [i for step in zip(*two, strict=True) for i in step] + [i for step in zip(*three, strict=True) for i in step]
    assert seen == whole


def test_turns_keep_the_groups_of_the_minibatch_standard_deviation():
    batch, group, world_size = 16, 4, 2
    whole = torch.arange(batch)
    groups = {tuple(sorted(column)) for column in whole.reshape(group, -1).T.tolist()}
    shared = set()
    for rank in range(world_size):
        share = torch.tensor(take(InfiniteSampler(batch, shuffle=False, rank=rank, world_size=world_size), 8))
        shared |= {tuple(sorted(column)) for column in share.reshape(group, -1).T.tolist()}
    assert shared == groups


@pytest.mark.parametrize(
    "numbers", [{"num_items": 0}, {"seed": -1}, {"start": -1}, {"rank": 2, "world_size": 2}, {"rank": -1}]
)
def test_numbers_out_of_range_are_said(numbers):
    with pytest.raises(ValueError, match="expected"):
        InfiniteSampler(**({"num_items": 5} | numbers))


@pytest.mark.parametrize("kind", ["zip", "folder", "lmdb", "cached"])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path, kind):
    make = {"folder": write_folder, "lmdb": write_lmdb}.get(kind, write_zip)
    dataset = ImageDataset(make(tmp_path / "data.zip", FILES), use_labels=True, mirror=True, cache=kind == "cached")
    dataset[0]
    streams = [take(batches(dataset, batch_size=5, seed=1, num_workers=workers), 8) for workers in (0, 1, 2)]
    for images, labels in streams[0]:
        assert (images.shape, images.dtype) == ((5, 3, 8, 8), torch.uint8)
        assert (labels.shape, labels.dtype) == ((5, 1), torch.float32)
    for other in streams[1:]:
        for (images, labels), (other_images, other_labels) in zip(streams[0], other, strict=True):
            assert torch.equal(images, other_images)
            assert torch.equal(labels, other_labels)


def test_batches_follow_the_sampler(dataset):
    expected = take(InfiniteSampler(11, seed=2, start=4), 15)
    assert indices(batches(dataset, batch_size=5, seed=2, start=4), 3) == [expected[:5], expected[5:10], expected[10:]]
    images, labels = next(batches(dataset, batch_size=4, seed=2))
    for image, label in zip(images, labels, strict=True):
        assert (image.numpy() == PICTURES[f"{int(label):02d}.png"].transpose(2, 0, 1)).all()


def test_half_batches_of_two_processes_make_the_batch_of_one(dataset):
    one = indices(batches(dataset, batch_size=6, seed=2, start=3), 5)
    halves = [indices(batches(dataset, batch_size=3, seed=2, start=3, rank=r, world_size=2), 5) for r in range(2)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(step) for step in one]


def test_a_batch_may_be_larger_than_the_dataset(dataset):
    counts = Counter(indices(batches(dataset, batch_size=33), 1)[0])
    assert counts == dict.fromkeys(range(11), 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_state_is_left_alone(dataset, workers):
    torch.manual_seed(0)
    np.random.seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    take(batches(dataset, batch_size=2, num_workers=workers), 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_the_same_sentence(tmp_path, workers):
    path = write_zip(tmp_path / "a.zip", FILES | {"zz.png": b"broken"})
    stream = batches(ImageDataset(path), batch_size=4, num_workers=workers, shuffle=False)
    with pytest.raises(ValueError, match=r"^zz\.png in .*a\.zip: broken picture \(not a picture\)[^\n]*$"):
        take(stream, 4)


def test_a_batch_size_out_of_range_is_said_at_once(dataset):
    with pytest.raises(ValueError, match="batch_size: got 0"):
        batches(dataset, batch_size=0)


def test_workers_survive_the_signals_that_the_trainer_handles(dataset):
    loader = batches(dataset, batch_size=2, num_workers=1)
    next(loader)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
    assert len(take(loader, 20)) == 20
