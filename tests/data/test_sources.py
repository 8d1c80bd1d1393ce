import gzip
import io
import json
import multiprocessing
import os
import pickle
import struct
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from small_datasets import encode, random_pictures, write_folder, write_lmdb, write_zip

from styleforge.data.sources import dataset_name, open_source

FILES = {
    name: encode(pixels)
    for name, pixels in random_pictures(["b/2.png", "a/1.png", "a/1.PNG", "10.png", "9.png"]).items()
}


def every_kind(tmp_path):
    return [
        write_folder(tmp_path / "folder", FILES),
        write_zip(tmp_path / "stored.zip", FILES),
        write_zip(tmp_path / "deflated.zip", FILES, zipfile.ZIP_DEFLATED),
        write_lmdb(tmp_path / "some_lmdb", FILES),
    ]


def read_all(sources, send):
    send.put([{name: source.read(name) for name in source.names} for source in sources])


def test_every_kind_gives_the_same_names_and_bytes(tmp_path):
    for path in every_kind(tmp_path):
        source = open_source(path)
        assert source.names == sorted(FILES)
        assert {name: source.read(name) for name in source.names} == FILES
        assert {name: source.open(name).read() for name in source.names} == FILES


def test_names_that_are_no_pictures_are_left_out(tmp_path):
    junk = {"notes.txt": b"x", "__MACOSX/._9.png": b"x", ".cache/1.png": b"x", "a/.1.png": b"x"}
    for path in (write_folder(tmp_path / "f", FILES | junk), write_zip(tmp_path / "f.zip", FILES | junk)):
        assert open_source(path).names == sorted(FILES)


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path):
    folder = write_folder(tmp_path / "f", FILES)
    (folder / "a" / "loop").symlink_to(folder)
    assert open_source(folder).names == sorted(FILES)


def test_a_linked_folder_is_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"x.png": FILES["9.png"]})
    folder = write_folder(tmp_path / "f", {"9.png": FILES["9.png"]})
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert open_source(folder).names == ["9.png", "link/x.png"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_can_read(tmp_path, method):
    context = multiprocessing.get_context(method)
    sources = [open_source(path) for path in every_kind(tmp_path)]
    for source in sources:
        source.read(source.names[0])  # opened here before the other process begins
    queue = context.Queue()
    process = context.Process(target=read_all, args=(sources, queue))
    process.start()
    assert queue.get(timeout=60) == [FILES] * len(sources)
    process.join()
    assert sources[-1].read("9.png") == FILES["9.png"]


def test_a_pickled_source_reads_the_same(tmp_path):
    for path in every_kind(tmp_path):
        copy = pickle.loads(pickle.dumps(open_source(path)))
        assert {name: copy.read(name) for name in copy.names} == FILES


def test_two_readers_of_one_lmdb_live_side_by_side(tmp_path):
    path = write_lmdb(tmp_path / "lmdb", FILES)
    first, second = open_source(path), open_source(path)
    assert first.read("9.png") == second.read("9.png")


def test_an_lmdb_is_free_again_when_nobody_reads_it(tmp_path):
    path = write_lmdb(tmp_path / "lmdb", {"a.png": b"x"})
    source = open_source(path)
    assert source.read("a.png") == b"x"
    del source
    write_lmdb(path, {"b.png": b"y"})
    assert open_source(path).names == ["a.png", "b.png"]


def test_fingerprints_change_with_the_picture(tmp_path):
    changed = FILES | {"9.png": FILES["10.png"] + b"more"}
    for make, name in ((write_folder, "f"), (write_zip, "f.zip"), (write_lmdb, "f_lmdb")):
        (tmp_path / "1").mkdir(exist_ok=True), (tmp_path / "2").mkdir(exist_ok=True)
        one, two = open_source(make(tmp_path / "1" / name, FILES)), open_source(make(tmp_path / "2" / name, changed))
        assert one.fingerprint("9.png") == one.fingerprint("9.png")
        assert one.fingerprint("9.png") != two.fingerprint("9.png")


def test_names_of_datasets(tmp_path):
    assert dataset_name(tmp_path / "cats_64.zip") == "cats_64"
    assert dataset_name(tmp_path / "cifar-10-python.tar.gz") == "cifar-10-python"
    (tmp_path / "v1.2").mkdir()
    assert dataset_name(tmp_path / "v1.2") == "v1.2"


def test_missing_path_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder"):
        open_source(tmp_path / "nowhere")


def test_empty_folder_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"got a folder without pictures, expected files that end in one of \.png"):
        open_source(tmp_path)


def test_zip_without_pictures_is_said(tmp_path):
    with pytest.raises(ValueError, match="got a zip without pictures"):
        open_source(write_zip(tmp_path / "a.zip", {"readme.txt": b"x"}))


def test_file_that_is_no_zip_is_said(tmp_path):
    whole = write_zip(tmp_path / "a.zip", FILES).read_bytes()
    for content in (b"hello", b"", whole[: len(whole) // 2]):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.zip: expected a zip of pictures, but this is no zip"):
            open_source(tmp_path / "a.zip")


def test_damaged_zip_entry_is_said(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.index(FILES["9.png"]) + 60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or locked zip entry"):
        open_source(path).read("9.png")


def test_damaged_lmdb_is_said(tmp_path):
    write_folder(tmp_path / "x_lmdb", {"data.mdb": b"nothing of the kind" * 1000})
    with pytest.raises(ValueError, match="expected an LMDB folder, but it cannot be opened"):
        open_source(tmp_path / "x_lmdb")


def test_lmdb_that_was_cut_short_is_said(tmp_path):
    path = write_lmdb(tmp_path / "x_lmdb", {f"{i}.png": bytes(5000) for i in range(20)})
    content = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"data\.mdb was cut short, got \d+ bytes of \d+"):
        open_source(path)


def test_missing_extra_is_said(tmp_path, monkeypatch):
    path = write_lmdb(tmp_path / "x_lmdb", FILES)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match=r'pip install "styleforge\[lmdb\]"'):
        open_source(path)


def test_malformed_dataset_json_is_said(tmp_path):
    for text in (b"{", b"[1, 2]", b"\xff\xfe\xfd"):
        source = open_source(write_zip(tmp_path / "a.zip", FILES | {"dataset.json": text}))
        with pytest.raises(ValueError, match=r"dataset\.json (is not valid JSON|must look like)"):
            source.metadata()


# --- CIFAR-10 and MNIST -----------------------------------------------------------------------------------------


def cifar_content():
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8), [3, 1, 4, 1, 5, 9]


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def python_batches(pictures, labels):
    flat = pictures.reshape(len(pictures), -1)
    return {
        f"cifar-10-batches-py/data_batch_{i + 1}": pickle.dumps(
            {b"data": flat[3 * i : 3 * i + 3], b"labels": labels[3 * i : 3 * i + 3], b"batch_label": b"x"}, protocol=2
        )
        for i in range(2)
    }


def binary_batches(pictures, labels):
    records = np.concatenate([np.array(labels, np.uint8)[:, None], pictures.reshape(len(pictures), -1)], axis=1)
    return {f"cifar-10-batches-bin/data_batch_{i + 1}.bin": records[3 * i : 3 * i + 3].tobytes() for i in range(2)}


@pytest.mark.parametrize("batches", [python_batches, binary_batches])
def test_cifar10_is_read_from_both_archives(tmp_path, batches):
    pictures, labels = cifar_content()
    source = open_source(write_tar(tmp_path / "cifar-10.tar.gz", batches(pictures, labels)))
    assert source.metadata()["labels"] == [[f"img{i:08d}.png", label] for i, label in enumerate(labels)]
    for name, expected in zip(source.names, pictures, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(source.read(name))))
        assert (pixels == expected.transpose(1, 2, 0)).all()


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, exec, eval, getattr, np.load, np.memmap])
def test_hostile_cifar_pickle_is_refused_and_nothing_runs(tmp_path, function):
    trace = tmp_path / "trace"
    argument = f"__import__('os').mkdir({str(trace)!r})" if function in (exec, eval) else str(trace)
    batch = pickle.dumps({b"data": Hostile(function, argument), b"labels": []}, protocol=2)
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", {"data_batch_1": batch})
    with pytest.raises(ValueError, match="which no CIFAR batch needs and which could run code"):
        open_source(path)
    assert not trace.exists()


def test_damaged_cifar_archive_is_said(tmp_path):
    whole = write_tar(tmp_path / "c.tar.gz", python_batches(*cifar_content())).read_bytes()
    no_batches = write_tar(tmp_path / "d.tar.gz", {"readme": b""}).read_bytes()
    for content in (whole[: len(whole) // 2], b"nothing", no_batches):
        (tmp_path / "c.tar.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"expected the official cifar-10-python\.tar\.gz or"):
            open_source(tmp_path / "c.tar.gz")


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
    return path


def test_mnist_is_read_with_its_labels_and_padded_to_32(tmp_path):
    pictures = np.random.default_rng(2).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    path = write_idx(tmp_path / "train-images-idx3-ubyte.gz", pictures)
    assert open_source(path).metadata() == {"labels": None}
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(5, dtype=np.uint8))
    source = open_source(path)
    pixels = np.asarray(Image.open(io.BytesIO(source.read(source.names[3]))))
    assert pixels.shape == (32, 32)
    assert (pixels[2:30, 2:30] == pictures[3]).all()
    assert pixels.sum() == pictures[3].sum()
    assert json.loads(json.dumps(source.metadata()))["labels"][3] == ["img00000003.png", 3]


def test_damaged_mnist_is_said(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for content in (b"nothing", gzip.compress(b"\0\0\x08\x03\0\0\0\x09"), gzip.compress(b"no idx file")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected an MNIST file in idx format"):
            open_source(path)
    write_idx(path, np.zeros((5, 28, 28), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="got 4 labels for the 5 pictures"):
        open_source(path)
