import importlib.util
import io
import json
import os
import signal
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_ranks
from tiny_generators import tiny_generator

from styleforge import dist, images
from styleforge import shards as module
from styleforge.data import ImageDataset
from styleforge.data.check import check
from styleforge.latents import generate_images
from styleforge.shards import SeedPictures, write_shards, write_zip

CPU = torch.device("cpu")
NUM = 11


def pictures(kind="square", **fields):
    """Eleven pictures, in batches of four."""
    return SeedPictures(**{"G": tiny_generator(kind), "seeds": range(NUM), "noise_mode": "random", "batch": 4} | fields)


def expected(made, **fields):
    """The same, as one call for all makes them."""
    batches = generate_images(made.G, list(made.seeds), noise_mode="random", batch=made.batch, **fields)
    return torch.cat([images_uint8 for _, _, images_uint8 in batches])


def tars(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def members(data):
    """Names and contents of a tar, in order."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def pixels(data):
    with Image.open(io.BytesIO(data)) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def die(done, total):
    if done == 6:
        os.kill(os.getpid(), signal.SIGKILL)


# Pictures


@pytest.mark.parametrize("first", [0, 3, 4, 9])
@pytest.mark.parametrize("stop", [10, NUM])
def test_a_picture_is_the_same_to_the_bit_whichever_others_are_made(first, stop):
    made, reference = pictures(), expected(pictures())
    found = dict(made.make(range(first, stop)))
    assert list(found) == list(range(first, stop))
    assert all(torch.equal(image, reference[number]) for number, image in found.items())


def test_every_seed_is_made_with_every_label():
    made = pictures("conditional", seeds=[7, 3], labels=torch.eye(3))
    assert len(made) == 6
    assert [made.seed(i) for i in range(6)] == [7, 7, 7, 3, 3, 3]
    assert [made.label(i) for i in range(6)] == [0, 1, 2, 0, 1, 2]
    reference = torch.cat(
        [x for _, _, x in generate_images(made.G, [7] * 3 + [3] * 3, c=torch.eye(3).repeat(2, 1), batch=4,
                                          noise_mode="random")]
    )  # fmt: skip
    assert all(torch.equal(image, reference[number]) for number, image in made.make(range(6)))
    assert pictures("conditional", labels=torch.tensor([[0.5, 0, 0.5]])).label(3) == [0.5, 0, 0.5]
    assert pictures("conditional", labels=torch.tensor([[0.0, 0, 0]])).label(3) == [0, 0, 0]
    assert pictures().label(3) is None


def test_settings_tell_pictures_apart():
    other = tiny_generator()
    next(other.synthesis.parameters()).mul_(1.01)
    all_settings = [
        made.settings()
        for made in (
            pictures(),
            pictures(G=other),
            pictures(seeds=range(12)),
            pictures("conditional", labels=torch.eye(3)),
            pictures("conditional", labels=torch.eye(3)[:1]),
            pictures(truncation_psi=0.5),
            pictures(truncation_cutoff=2),
            pictures(noise_mode="none"),
            pictures(lod=1.0),
            pictures(batch=5),
            pictures(transform_settings={"compress": "1"}),
        )
    ]
    texts = [json.dumps(settings) for settings in all_settings]
    assert len(set(texts)) == len(texts)
    assert pictures().settings() == all_settings[0]
    assert all_settings[0]["seeds"] == "0-10"


# Shards


def test_shards_hold_each_picture_and_what_made_it(tmp_path):
    made, calls = pictures(), []
    written = write_shards(made, tmp_path / "new/shards", shard_size=5, progress=lambda *call: calls.append(call))
    assert (written.files, written.new) == (3, 3)
    assert calls == [(i, NUM) for i in range(1, NUM + 1)]
    found = tars(tmp_path / "new/shards")
    assert sorted(found) == [f"shard-{i:06d}.tar" for i in range(3)]
    assert names(tmp_path / "new/shards") == ["index.json", *sorted(found)]
    contents = {name: data for shard in sorted(found) for name, data in members(found[shard]).items()}
    assert list(contents) == [f"{i:08d}{ending}" for i in range(NUM) for ending in (".png", ".json")]
    for i, image in enumerate(expected(made)):
        images.save(image, tmp_path / "plain.png")
        assert contents[f"{i:08d}.png"] == (tmp_path / "plain.png").read_bytes()
        about = json.loads(contents[f"{i:08d}.json"])
        assert about == {"seed": i, "label": None, "psi": 1.0, "network": made.network}
    index = json.loads((tmp_path / "new/shards/index.json").read_text())
    assert index["shard_size"] == 5 and index["network"] == made.network and len(made.network) == 64


def test_shards_are_plain_ustar_and_the_same_bytes_every_time(tmp_path):
    for name in ("a", "b"):
        write_shards(pictures(), tmp_path / name, shard_size=5)
    assert tars(tmp_path / "a") == tars(tmp_path / "b")
    data = (tmp_path / "a/shard-000000.tar").read_bytes()
    assert data[257:265] == b"ustar\x0000" and len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(member.mode, member.uid, member.mtime, member.type) for member in tar} == {
            (0o644, 0, 0, tarfile.REGTYPE)
        }


@pytest.mark.skipif(importlib.util.find_spec("webdataset") is None, reason="webdataset is not installed")
def test_webdataset_reads_the_shards(tmp_path):
    import webdataset

    write_shards(pictures(), tmp_path, shard_size=5)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["seed"] for sample in samples] == list(range(NUM))


@pytest.mark.parametrize("shard_size", [1, 4, 100])
def test_the_shard_size_does_not_change_the_pictures(tmp_path, shard_size):
    write_shards(pictures(), tmp_path, shard_size=shard_size)
    contents = [data for _, shard in sorted(tars(tmp_path).items()) for data in members(shard).values()]
    for data, image in zip(contents[::2], expected(pictures()), strict=True):
        assert torch.equal(pixels(data), image)


def write_in_group(folder, progress=None):
    torch.set_num_threads(1)
    with dist.Group(CPU):
        written = write_shards(pictures(), folder, shard_size=2, progress=progress)
    return written.files, written.new


def test_two_processes_make_what_one_makes(tmp_path):
    write_shards(pictures(), tmp_path / "one", shard_size=2)
    assert run_ranks(write_in_group, 2, tmp_path / "two") == [(6, 6)] * 2
    assert tars(tmp_path / "two") == tars(tmp_path / "one")
    assert run_ranks(write_in_group, 3, tmp_path / "two") == [(6, 0)] * 3


def test_a_killed_process_loses_the_shard_in_work_alone(tmp_path):
    write_shards(pictures(), tmp_path / "whole", shard_size=5)
    killed = tmp_path / "killed"
    assert run_ranks(write_until_killed, 1, killed) == [None]
    assert [name for name in names(killed) if not name.startswith(".")] == ["index.json", "shard-000000.tar"]
    assert any(name.startswith(".shard-000001") for name in names(killed))  # half-written
    first = (killed / "shard-000000.tar").stat()
    written = write_shards(pictures(), killed, shard_size=5)
    assert (written.files, written.new) == (3, 2)
    assert (killed / "shard-000000.tar").stat().st_mtime_ns == first.st_mtime_ns
    assert tars(killed) == tars(tmp_path / "whole")
    assert len(names(killed)) == 4


def write_until_killed(folder):
    write_shards(pictures(), folder, shard_size=5, progress=die)


def test_missing_shards_alone_are_made(tmp_path):
    write_shards(pictures(), tmp_path, shard_size=3)
    before = tars(tmp_path)
    (tmp_path / "shard-000001.tar").unlink()
    assert write_shards(pictures(), tmp_path, shard_size=3).new == 1
    assert tars(tmp_path) == before
    assert write_shards(pictures(), tmp_path, shard_size=3).new == 0


def refusal(write):
    with pytest.raises(ValueError) as refused:
        write()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    write_shards(pictures(), tmp_path, shard_size=5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for fields, part in (
        ({"truncation_psi": 0.7}, "psi 1.0, got 0.7"),
        ({"seeds": range(12)}, 'seeds "0-10", got "0-11"'),
        ({"batch": 3}, "batch 4, got 3"),
        ({"transform_settings": {"compress": "1"}}, 'compress null, got "1"'),
    ):
        assert part in refusal(lambda fields=fields: write_shards(pictures(**fields), tmp_path, shard_size=5))
    assert "shard_size 5, got 6" in refusal(lambda: write_shards(pictures(), tmp_path, shard_size=6))
    assert 'suffix ".png", got ".jpg"' in refusal(
        lambda: write_shards(pictures(), tmp_path, shard_size=5, suffix=".jpg")
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_without_any_shard_takes_other_settings(tmp_path):
    write_shards(pictures(), tmp_path, shard_size=NUM)
    (tmp_path / "shard-000000.tar").unlink()
    write_shards(pictures(batch=2), tmp_path, shard_size=5)
    assert json.loads((tmp_path / "index.json").read_text())["batch"] == 2


def test_what_others_have_put_there_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/shard-000000.tar").write_bytes(b"mine")
    (tmp_path / "b/index.json").write_text("{}")
    for name in ("a", "b"):
        before = {path: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert "expected" in refusal(lambda name=name: write_shards(pictures(), tmp_path / name))
        assert {path: path.read_bytes() for path in (tmp_path / name).iterdir()} == before
    assert "shard_size: got 0" in refusal(lambda: write_shards(pictures(), tmp_path / "c", shard_size=0))


def refused_in_group(folder):
    torch.set_num_threads(1)
    with dist.Group(CPU):
        write_shards(pictures(), folder, shard_size=2)


def test_all_processes_say_why_they_refuse(tmp_path):
    write_shards(pictures(), tmp_path, shard_size=3)
    errors = run_ranks(refused_in_group, 2, tmp_path)
    assert all(isinstance(error, ValueError) and "shard_size 3, got 2" in str(error) for error in errors)


# Zips


@pytest.mark.parametrize("kind", ["square", "non-square", "gray", "rgba"])
def test_a_zip_is_a_dataset(tmp_path, kind):
    made = pictures(kind)
    written = write_zip(made, tmp_path / "new/x.zip")
    assert (written.files, written.new) == (1, 1)
    report = check(tmp_path / "new/x.zip")
    assert report.count == NUM and not report.problems and report.label_kind is None
    dataset = ImageDataset(tmp_path / "new/x.zip")
    assert dataset.resolution == made.G.config.size
    assert torch.equal(torch.stack([dataset[i][0] for i in range(NUM)]), expected(made))
    with zipfile.ZipFile(tmp_path / "new/x.zip") as archive:
        assert archive.namelist()[:2] == ["00000/img00000000.png", "00000/img00000001.png"]
        assert json.loads(archive.read("dataset.json"))["labels"] is None
    assert names(tmp_path / "new") == ["x.zip"]


def test_a_zip_has_the_labels(tmp_path):
    write_zip(pictures("conditional", labels=torch.eye(3)), tmp_path / "classes.zip")
    dataset = ImageDataset(tmp_path / "classes.zip", use_labels=True)
    assert torch.equal(torch.stack([dataset[i][1] for i in range(6)]), torch.eye(3).repeat(2, 1))
    write_zip(pictures("conditional", labels=torch.eye(3)[:1]), tmp_path / "first.zip")
    assert ImageDataset(tmp_path / "first.zip", use_labels=True).c_dim == 3
    write_zip(pictures("conditional", labels=torch.tensor([[0.5, 0, 0.5]])), tmp_path / "vectors.zip")
    assert ImageDataset(tmp_path / "vectors.zip", use_labels=True)[4][1].tolist() == [0.5, 0, 0.5]


def test_an_interrupted_zip_goes_on(tmp_path, monkeypatch):
    write_zip(pictures(), tmp_path / "whole.zip")

    def interrupt(done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_zip(pictures(), tmp_path / "x.zip", progress=interrupt)
    assert names(tmp_path) == ["whole.zip", "x.zip.partial"]
    asked = []
    make = SeedPictures.make
    monkeypatch.setattr(SeedPictures, "make", lambda self, numbers: asked.append(numbers) or make(self, numbers))
    write_zip(pictures(), tmp_path / "x.zip")
    assert asked == [range(6, NUM)]
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_a_killed_zip_starts_again(tmp_path):
    write_zip(pictures(), tmp_path / "whole.zip")
    assert run_ranks(zip_until_killed, 1, tmp_path / "x.zip") == [None]
    assert not (tmp_path / "x.zip").exists()
    write_zip(pictures(), tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def zip_until_killed(path):
    write_zip(pictures(), path, progress=die)


def test_a_complete_zip_is_kept_and_another_one_refused(tmp_path):
    path = tmp_path / "x.zip"
    write_zip(pictures(), path)
    before = path.read_bytes()
    assert write_zip(pictures(), path).new == 0
    assert "psi 1.0, got 0.7" in refusal(lambda: write_zip(pictures(truncation_psi=0.7), path))
    assert path.read_bytes() == before
    (tmp_path / "text.zip").write_text("text")
    assert "does not say how it was made" in refusal(lambda: write_zip(pictures(), tmp_path / "text.zip"))


def zip_in_group(path):
    with dist.Group(CPU):
        write_zip(pictures(), path)


def test_several_processes_cannot_write_one_zip(tmp_path):
    errors = run_ranks(zip_in_group, 2, tmp_path / "x.zip")
    assert all("got 2 processes for one zip, expected one" in str(error) for error in errors)
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [write_zip, write_shards])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path, monkeypatch, write):
    def fail(numbered, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_encoded", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write(pictures(), tmp_path / "x.zip")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.name == "index.json" for path in left)


def test_places_that_cannot_hold_pictures_are_said(tmp_path, refuses):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.zip").mkdir()
    with refuses("file", "got a file", "folder for shards"):
        write_shards(pictures(), tmp_path / "file")
    with refuses("folder.zip", "got a folder", "name of a zip"):
        write_zip(pictures(), tmp_path / "folder.zip")
    for write, name in ((write_shards, "shards"), (write_zip, "all.zip")):
        with pytest.raises(OSError, match="choose another place"):
            write(pictures(), tmp_path / "file" / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_no_seeds_and_negative_batches_are_refused(refuses):
    with refuses("seeds", "none", "--seeds"):
        pictures(seeds=[])
    with refuses("batch", "-2", "--batch"):
        pictures(batch=-2)
