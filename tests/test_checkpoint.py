import errno
import http.server
import json
import os
import pickle
import random
import stat
import struct
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from styleforge import checkpoint
from styleforge.checkpoint import Checkpoint, load, load_generator, resolve, save
from styleforge.networks import Discriminator, Generator, network_preset

INFO = {"counters": {"cur_nimg": 5}, "note": "é"}


def networks(name="config-e", c_dim=0):
    g, d = network_preset(name, 8, c_dim=c_dim)
    small = {"channel_base": 32, "channel_max": 4, "mapping_layers": 1}
    return Generator(replace(g, z_dim=4, w_dim=4, **small)), Discriminator(replace(d, **small))


@pytest.fixture
def G():
    return networks()[0]


@pytest.fixture
def good(tmp_path, G):
    path = tmp_path / "good.safetensors"
    save(path, G_ema=G, info=INFO)
    return path


@pytest.fixture
def refused():
    """``refused(path)``: loading is refused with one sentence that names the file, and nothing else."""

    def check(path):
        with pytest.raises(ValueError, match="expected") as info:
            load(path)
        message = str(info.value)
        assert message.startswith(f"{path}: got ")
        assert "\n" not in message

    return check


def same_tensors(mine, theirs):
    mine, theirs = mine.state_dict(), theirs.state_dict()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


# Round trips


@pytest.mark.parametrize("name", ["config-a", "config-d", "config-f", "config-e-gresnet-dskip"])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_everything_comes_back_as_it_was(tmp_path, name, c_dim):
    G, D = networks(name, c_dim)
    G_ema, _ = networks(name, c_dim)
    G.mapping.w_avg.normal_()
    training = {"pl_mean": torch.tensor(1.5), "a.step": torch.tensor(3), "m": torch.randn(2, 3).double()}
    config = {"name": name, "betas": [0.0, 0.99]}
    save(tmp_path / "a.safetensors", G_ema=G_ema, G=G, D=D, config=config, training=training, info=INFO)
    loaded = load(tmp_path / "a.safetensors")
    assert same_tensors(loaded.G, G)
    assert same_tensors(loaded.G_ema, G_ema)
    assert same_tensors(loaded.D, D)
    assert (loaded.G.config, loaded.D.config) == (G.config, D.config)
    assert (loaded.config, loaded.info) == (config, INFO)
    assert loaded.training.keys() == training.keys()
    for key, tensor in training.items():
        assert loaded.training[key].dtype == tensor.dtype
        assert torch.equal(loaded.training[key], tensor)
    assert not any(network.training for network in (loaded.G, loaded.G_ema, loaded.D))


def test_any_part_may_be_left_out(tmp_path):
    _, D = networks()
    save(tmp_path / "a.safetensors", D=D)
    loaded = load(tmp_path / "a.safetensors")
    assert same_tensors(loaded.D, D)
    assert replace(loaded, D=None, source="") == Checkpoint()
    with pytest.raises(ValueError, match="without a generator, expected one with G_ema or G"):
        load_generator(tmp_path / "a.safetensors")


def test_weights_in_another_memory_layout_are_stored_alike(tmp_path, G, good):
    save(tmp_path / "a.safetensors", G_ema=G.to(memory_format=torch.channels_last), info=INFO)
    with safe_open(good, "pt") as one, safe_open(tmp_path / "a.safetensors", "pt") as other:
        assert one.metadata() == other.metadata()  # the digest among it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path, good, G, dtype):
    save(tmp_path / "half.safetensors", G_ema=G, dtype=dtype, info=INFO)
    stored = load_file(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    size = sum(tensor.nbytes for tensor in stored.values())
    assert 2 * size == sum(tensor.nbytes for tensor in load_file(good).values())
    loaded = load_generator(tmp_path / "half.safetensors").state_dict()
    for name, tensor in G.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.to(dtype).float())


def test_load_generator_prefers_the_average(tmp_path):
    (G, _), (G_ema, _) = networks(), networks()
    save(tmp_path / "both.safetensors", G=G, G_ema=G_ema)
    save(tmp_path / "one.safetensors", G=G)
    assert same_tensors(load_generator(tmp_path / "both.safetensors"), G_ema)
    assert same_tensors(load_generator(tmp_path / "one.safetensors"), G)
    assert not any(p.requires_grad for p in load_generator(tmp_path / "one.safetensors").parameters())


def test_loading_leaves_the_random_state_alone(good):
    before = torch.get_rng_state()
    load(good)
    assert torch.equal(torch.get_rng_state(), before)


# Writing


def half_written(tensors, path, metadata=None):
    save_file(tensors, path, metadata=metadata)
    with Path(path).open("r+b") as file:
        file.truncate(Path(path).stat().st_size // 2)
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written_by_safetensors(tensors, path, metadata=None):
    try:
        half_written(tensors, path, metadata)
    except OSError as error:
        raise SafetensorError(f"Error while serializing: I/O error: {error}") from None


@pytest.mark.parametrize("write", [half_written, half_written_by_safetensors])
def test_a_failed_write_is_an_oserror_and_leaves_the_old_file(tmp_path, good, monkeypatch, write):
    before = good.read_bytes()
    monkeypatch.setattr("safetensors.torch.save_file", write)
    with pytest.raises(OSError, match="No space left"):
        save(good, G_ema=networks()[0])
    assert good.read_bytes() == before
    assert list(tmp_path.iterdir()) == [good]


def test_a_failed_move_leaves_the_old_file(tmp_path, good, monkeypatch):
    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    before = good.read_bytes()
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        save(good, G_ema=networks()[0])
    assert good.read_bytes() == before
    assert list(tmp_path.iterdir()) == [good]


def test_the_file_is_on_the_disk_before_it_takes_its_place(tmp_path, G, monkeypatch):
    events = []
    fsync, move = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("replace"), move(self, target))[1])
    save(tmp_path / "a.safetensors", G_ema=G)
    assert events[:2] == ["fsync", "replace"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, G, umask, mode):
    before = os.umask(umask)
    try:
        save(tmp_path / "a.safetensors", G_ema=G)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode


def test_missing_folders_are_made(tmp_path, G):
    save(tmp_path / "a" / "b" / "c.safetensors", G_ema=G)
    assert load(tmp_path / "a" / "b" / "c.safetensors").G_ema is not None


# Damage


def test_a_file_cut_off_anywhere_is_refused(tmp_path, good, refused):
    content = good.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    lengths = {0, 1, 7, 8, 9, 100, header - 1, header, header + 1, len(content) - 1}
    for length in lengths | {len(content) * i // 10 for i in range(10)}:
        path = tmp_path / "cut.safetensors"
        path.write_bytes(content[:length])
        refused(path)


def test_bytes_after_the_end_are_refused(tmp_path, good, refused):
    path = tmp_path / "long.safetensors"
    path.write_bytes(good.read_bytes() + b"\0" * 16)
    refused(path)


def flips(content, positions):
    for position in positions:
        yield (
            position,
            content[: position // 8]
            + bytes([content[position // 8] ^ 1 << position % 8])
            + content[position // 8 + 1 :],
        )


def test_a_flipped_bit_in_the_tensors_is_refused(tmp_path, good, refused):
    content = good.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    positions = random.Random(0).sample(range(8 * header, 8 * len(content)), 60)
    path = tmp_path / "flip.safetensors"
    for _, damaged in flips(content, [*positions, 8 * len(content) - 1]):
        path.write_bytes(damaged)
        refused(path)


def test_a_flipped_bit_in_the_header_is_refused_or_changes_nothing(tmp_path, good, G, refused):
    """A space may become another blank; every other change must be noticed."""
    content = good.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    words = [content.index(word) for word in (b"__metadata__", b"format", b'"header', b"sha256", b'"dtype', b"shape")]
    positions = {8 * byte + bit for byte in [*range(8), *range(size - 8, size)] for bit in range(8)}
    positions |= {8 * (start + i) + bit for start in words for i in range(16) for bit in (0, 1, 3, 5)}
    positions |= set(random.Random(0).sample(range(8 * size), 150))
    path, unnoticed = tmp_path / "flip.safetensors", 0
    for _, damaged in flips(content, sorted(positions)):
        path.write_bytes(damaged)
        try:
            loaded = load(path)
        except ValueError:
            refused(path)
        else:
            unnoticed += 1
            assert same_tensors(loaded.G_ema, G)
            assert loaded.info == INFO
    assert unnoticed < 10


class Trap:
    """Would make a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["png", "empty", "text", "json", "zip", "pickle", "torch", "folder.zip"])
def test_files_of_another_kind_are_refused_and_not_executed(tmp_path, refused, kind):
    path, sprung = tmp_path / "foreign.safetensors", tmp_path / "sprung"
    if kind == "png":
        Image.new("RGB", (64, 64)).save(path, "png")
    elif kind in ("empty", "text", "json"):
        path.write_text({"empty": "", "text": "a" * 1000, "json": '{"a": 1}'}[kind])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"G_ema": Trap(sprung)}))
    elif kind == "torch":
        torch.save({"G_ema": Trap(sprung)}, path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Trap(sprung)))
    refused(path)
    assert not sprung.exists()


def test_safetensors_of_other_programs_are_refused(tmp_path, refused):
    path = tmp_path / "a.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"G_ema.mapping.w_avg": torch.zeros(4), "a": torch.zeros(2)}, path, metadata=metadata)
        refused(path)


def signed(path, tensors, header):
    """A file whose digest is right, as somebody could make it by hand."""
    text = header if isinstance(header, str) else json.dumps(header)
    metadata = {"format": checkpoint.FORMAT, "header": text, "sha256": checkpoint._digest(tensors, text)}
    save_file(tensors, path, metadata=metadata)
    return path


def test_contents_that_do_not_fit_together_are_refused(tmp_path, G, refused):
    header = {"config": {}, "info": {}, "networks": {"G_ema": G.config.to_dict()}}
    tensors = {f"G_ema.{name}": tensor for name, tensor in G.state_dict().items()}
    path = tmp_path / "a.safetensors"
    load(signed(path, tensors, header))
    fewer = dict(list(tensors.items())[1:])
    refused(signed(path, fewer, header))  # a tensor is missing
    refused(signed(path, {}, header))  # all are
    refused(signed(path, tensors | {"G_ema.more": torch.zeros(1)}, header))
    refused(signed(path, tensors | {"nodot": torch.zeros(1)}, header))
    refused(signed(path, tensors | {next(iter(tensors)): torch.zeros(99)}, header))  # another shape
    refused(signed(path, tensors, {"networks": {}}))
    refused(signed(path, tensors, []))
    refused(signed(path, tensors, "{"))
    refused(signed(path, tensors, header | {"networks": {"config": G.config.to_dict()}}))
    refused(signed(path, tensors, header | {"networks": {"G_ema": {"resolution": 8, "later_field": 1}}}))
    refused(signed(path, tensors, header | {"networks": {"G_ema": {"resolution": "8"}}}))


# Where checkpoints come from


def test_a_run_directory_is_its_last_snapshot(tmp_path, G):
    for kimg in (0, 5, 10, 200):
        save(tmp_path / f"network-snapshot-{kimg:06d}.safetensors", G_ema=G, info={"kimg": kimg})
    (tmp_path / ".network-snapshot-000300.x.part.safetensors").touch()
    (tmp_path / "fakes000300.png").touch()
    assert resolve(tmp_path).name == "network-snapshot-000200.safetensors"
    assert load(str(tmp_path)).info == {"kimg": 200}


def test_a_folder_without_snapshots_is_said(tmp_path):
    with pytest.raises(OSError, match="folder without network-snapshot"):
        load(tmp_path)


def test_a_missing_file_is_said_with_the_bundled_names(tmp_path, monkeypatch, G):
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path / "models")
    with pytest.raises(FileNotFoundError, match=r"nosuch: there is no such file, expected a checkpoint's path or URL$"):
        load("nosuch")
    save(tmp_path / "models" / "demo.safetensors", G_ema=G)
    with pytest.raises(FileNotFoundError, match=r"nosuch: .* bundled models demo"):
        load("nosuch")


def test_bundled_models_have_short_names_and_files_come_first(tmp_path, monkeypatch, G):
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "models" / "demo.safetensors", G_ema=G, info={"from": "package"})
    assert load("demo").info == {"from": "package"}
    save(tmp_path / "demo", G_ema=G, info={"from": "here"})
    assert load("demo").info == {"from": "here"}


# Over the network


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of the folder ``www`` on this machine: (its URL, the paths it was asked for)."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path / "www")

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "STYLEFORGE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()
        thread.join()


def test_a_url_is_fetched_once(tmp_path, server, G):
    url, asked = server
    save(tmp_path / "www" / "a.safetensors", G_ema=G, info=INFO)
    for _ in range(2):
        assert same_tensors(load(f"{url}/a.safetensors?x=1").G_ema, G)
    assert asked == ["/a.safetensors?x=1"]
    cached = list((tmp_path / "cache").rglob("*.safetensors"))
    assert [path.read_bytes() for path in cached] == [(tmp_path / "www" / "a.safetensors").read_bytes()]


def test_files_of_the_same_name_from_other_places_are_kept_apart(tmp_path, server):
    url, _ = server
    generators = {}
    for folder in ("a", "b"):
        generators[folder], _ = networks()
        save(tmp_path / "www" / folder / "x.safetensors", G_ema=generators[folder])
    for folder, G in generators.items():
        assert same_tensors(load(f"{url}/{folder}/x.safetensors").G_ema, G)


def test_a_url_that_cannot_be_fetched_is_said(tmp_path, server):
    url, _ = server
    with pytest.raises(OSError, match=r"nosuch.safetensors: could not be fetched"):
        load(f"{url}/nosuch.safetensors")


def test_no_url_is_fetched_offline_unless_it_was_before(tmp_path, server, G, monkeypatch):
    url, asked = server
    save(tmp_path / "www" / "a.safetensors", G_ema=G)
    load(f"{url}/a.safetensors")
    monkeypatch.setenv("STYLEFORGE_OFFLINE", "1")
    load(f"{url}/a.safetensors")
    with pytest.raises(OSError, match="downloads are forbidden"):
        load(f"{url}/b.safetensors")
    assert len(asked) == 1


def test_a_bundled_name_is_the_model_beside_a_folder_of_that_name_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert checkpoint.resolve("demo") == checkpoint.BUNDLED / "demo.safetensors"
    with pytest.raises(FileNotFoundError, match="folder without"):
        checkpoint.resolve("./demo/")


def test_an_impossible_shape_is_refused_in_one_sentence(tmp_path, refuses):
    path = tmp_path / "shape.safetensors"
    header = {
        "__metadata__": {"format": checkpoint.FORMAT, "header": "{}", "sha256": ""},
        "x": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with refuses("shape.safetensors", "damaged", "expected"):
        checkpoint.load(path)
