import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from styleforge import checkpoint
from styleforge.data import ImageDataset
from styleforge.files import atomic_path
from styleforge.networks import Generator
from styleforge.training import run_dir as files

from .tiny_runs import tiny_config


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


@pytest.fixture
def run_dir(config):
    return files.create(config, 1)


def save(run_dir, kimg, config):
    path = run_dir / f"network-snapshot-{kimg:06d}.safetensors"
    checkpoint.save(path, G_ema=Generator(config.generator), info={"kimg": kimg})
    return path


def test_run_directories_are_numbered_and_named_as_the_field_does(config):
    names = [
        files.create(config, 1).name,
        files.create(replace(config, gamma=8.192, desc="first try"), 8).name,
    ]
    assert names[0] == "00000-config-e-pictures16x3-gpus1-batch8-gamma100"
    assert names[1] == "00001-config-e-pictures16x3-gpus8-batch8-gamma8.192-first-try"


def test_numbers_go_on_after_the_largest(tmp_path, config):
    (tmp_path / "runs" / "00041-x").mkdir(parents=True)
    (tmp_path / "runs" / "99-x").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    assert files.create(config, 1).name.startswith("00042-")


def test_runs_that_start_at_once_get_directories_of_their_own(config, monkeypatch):
    first = files.create(config, 1)
    monkeypatch.setattr(type(first), "iterdir", lambda self: iter(()))  # what the second saw before the first was made
    assert files.create(config, 1) == first.with_name(first.name.replace("00000", "00001"))


def test_a_dataset_s_folder_gives_its_whole_name(tmp_path, config, monkeypatch):
    (tmp_path / "photos.v2").mkdir()
    monkeypatch.chdir(tmp_path / "photos.v2")
    for data in (".", str(tmp_path / "photos.v2")):
        assert "-config-e-photos.v2-gpus1-" in files.create(replace(config, data=data), 1).name


def test_a_place_where_nothing_can_be_made_is_said(tmp_path, config):
    (tmp_path / "file").touch()
    for outdir in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(OSError, match=r"no run directory could be made there \(.*--outdir"):
            files.create(replace(config, outdir=str(outdir)), 1)


def test_a_description_cannot_leave_the_folder(tmp_path, config):
    run_dir = files.create(replace(config, desc="../a/b"), 1)
    assert run_dir.parent == tmp_path / "runs"


def test_options_come_back(run_dir, config):
    assert files.read_options(run_dir) == config
    assert json.loads((run_dir / "training_options.json").read_text())["gamma"] == 100


def test_another_folder_is_no_run_directory(tmp_path):
    with pytest.raises(OSError, match=r"no training_options\.json, expected a run directory"):
        files.read_options(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"a"', "null", "\0\0", '{"name": 1}', '{"name": "\ud800"}'])
def test_damaged_options_are_said(run_dir, refuses, text):
    (run_dir / "training_options.json").write_text(text, errors="surrogatepass")
    with refuses("training_options.json: "):
        files.read_options(run_dir)


# Checkpoints


def test_the_newest_checkpoint_is_found(run_dir, config):
    for kimg in (0, 200, 1000):
        save(run_dir, kimg, config)
    said = []
    path, loaded = files.last_good(run_dir, said.append)
    assert path.name == "network-snapshot-001000.safetensors"
    assert loaded.info == {"kimg": 1000}
    assert said == []


def test_damaged_checkpoints_are_passed_over_by_name(run_dir, config):
    good, *damaged = [save(run_dir, kimg, config) for kimg in (0, 4, 8)]
    damaged[0].write_bytes(damaged[0].read_bytes()[:-1])
    damaged[1].write_bytes(b"")
    said = []
    assert files.last_good(run_dir, said.append)[0] == good
    assert [str(path) in line for line, path in zip(said, reversed(damaged), strict=True)] == [True, True]


def test_without_a_checkpoint_there_is_none_but_damaged_ones_are_no_reason_to_start_again(run_dir, config, refuses):
    assert files.last_good(run_dir, print) is None
    for kimg in (0, 4):
        save(run_dir, kimg, config).write_bytes(b"x")
    with refuses("2 checkpoints that are all damaged"):
        files.last_good(run_dir, lambda line: None)


@pytest.mark.parametrize(("keep", "left"), [(0, [0, 4, 8, 12]), (1, [12]), (3, [4, 8, 12]), (9, [0, 4, 8, 12])])
def test_prune_keeps_the_newest(run_dir, config, keep, left):
    paths = [save(run_dir, kimg, config) for kimg in (0, 4, 8, 12)]
    others = [run_dir / name for name in ("fakes000000.png", "stats.jsonl", "my-network-snapshot-000000.safetensors")]
    for other in others:
        other.touch()
    files.prune(run_dir, keep, paths[-1])
    assert files.snapshots(run_dir) == [path for path in paths if int(path.stem[-6:]) in left]
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_prune_never_takes_the_latest_for_a_damaged_one_from_before_the_resume(run_dir, config, keep):
    """A run that passed over a damaged checkpoint and was stopped before it came to the same place again."""
    for kimg in (0, 8):
        save(run_dir, kimg, config)
    (run_dir / "network-snapshot-000008.safetensors").write_bytes(b"damaged")
    latest = save(run_dir, 5, config)
    files.prune(run_dir, keep, latest)
    assert files.snapshots(run_dir)[-1] == latest
    assert checkpoint.resolve(run_dir) == latest


def test_prune_removes_what_a_killed_process_left_half_written(run_dir, config):
    latest = save(run_dir, 4, config)
    writing = [atomic_path(target) for target in (latest, run_dir / "fakes000004.png", run_dir / "stats.jsonl")]
    parts = [write.__enter__() for write in writing]  # and never comes to its end
    files.prune(run_dir, 0, latest)
    assert not any(part.exists() for part in parts)
    assert sorted(path.name for path in run_dir.iterdir()) == [latest.name, "training_options.json"]


def test_free_space_is_that_of_the_disk(run_dir):
    assert files.free_bytes(run_dir) == pytest.approx(shutil.disk_usage(run_dir).free, rel=0.1)


# Pictures


@pytest.mark.parametrize(
    ("size", "shape"),
    [((16, 16), (8, 6)), ((64, 64), (8, 6)), ((256, 256), (4, 3)), ((1024, 1024), (4, 2)), ((384, 512), (4, 2))],
)
def test_grids_stay_small(size, shape):
    assert files.grid_shape(size) == shape


@pytest.fixture
def scene(tmp_path, config):
    config = tiny_config(tmp_path, c_dim=3, cond=True)
    dataset = ImageDataset(config.data, use_labels=True)
    return dataset, Generator(config.generator)


def test_the_grid_shows_pictures_of_the_dataset(tmp_path, scene):
    dataset, G = scene
    grid = files.SampleGrid(dataset, G, seed=0, cond=True)
    grid.save_reals(tmp_path / "reals.png")
    sheet = np.asarray(Image.open(tmp_path / "reals.png"))
    assert sheet.shape == (3 * 16, 8 * 16, 3)  # 23 pictures in rows of 8
    known = {dataset[i][0].numpy().tobytes() for i in range(len(dataset))}
    cells = [
        sheet[y : y + 16, x : x + 16].transpose(2, 0, 1).tobytes() for y in range(0, 48, 16) for x in range(0, 128, 16)
    ]
    assert set(cells[:23]) == known


def test_the_grid_shows_the_same_latents_and_labels_each_time(tmp_path, scene):
    dataset, G = scene
    grid = files.SampleGrid(dataset, G, seed=0, cond=True)
    for name in ("a.png", "b.png"):
        torch.manual_seed(hash(name))
        grid.save_fakes(G, tmp_path / name, lod=0.0, batch=7)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert torch.equal(files.SampleGrid(dataset, G, seed=0, cond=True).z, grid.z)
    assert not torch.equal(files.SampleGrid(dataset, G, seed=1, cond=True).z, grid.z)
    reals = {dataset[i][0].numpy().tobytes(): dataset[i][1] for i in range(len(dataset))}
    for picture, label in zip(grid.reals, grid.c, strict=True):
        assert torch.equal(reals[picture.numpy().tobytes()], label)  # each latent has the label of the real beside it
