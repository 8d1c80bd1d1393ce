import hashlib
import http.server
import pickle
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from styleforge.features import available, load_extractor, weights
from styleforge.features.weights import INCEPTION, find, locate, read

FILE = replace(INCEPTION, name="weights-12345678.pth", sha256=hashlib.sha256(b"contents").hexdigest()[:8])


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders in the order in which they are searched: given, cache, PyTorch's."""
    given, cache, torch_home = tmp_path / "given", tmp_path / "cache" / "weights", tmp_path / "torch/hub/checkpoints"
    for folder in (given, cache, torch_home):
        folder.mkdir(parents=True)
    return given, cache, torch_home


def test_a_path_comes_first_then_the_folder_then_the_caches(places, tmp_path):
    given, *_ = places
    for folder in reversed(places):
        (folder / FILE.name).touch()
        assert locate(FILE, weights_dir=given) == folder / FILE.name
    (tmp_path / "mine.pth").touch()
    assert locate(FILE, path=tmp_path / "mine.pth", weights_dir=given) == tmp_path / "mine.pth"


def test_the_folder_may_stand_in_the_environment(places, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_WEIGHTS", str(places[0]))
    (places[0] / FILE.name).touch()
    assert find(FILE.name, None) == places[0] / FILE.name
    (tmp_path / "other").mkdir()
    assert find(FILE.name, tmp_path / "other") is None  # an argument counts instead


def test_a_folder_or_a_path_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(OSError, match=r"nosuch: there is no such folder.*--weights-dir, STYLEFORGE_WEIGHTS"):
        locate(FILE, weights_dir=tmp_path / "nosuch")
    with pytest.raises(OSError, match=r"nosuch.pth: there is no such file"):
        locate(FILE, path=tmp_path / "nosuch.pth")


@pytest.mark.parametrize("name", ["inception", "vgg16"])
def test_a_missing_file_is_said_with_what_to_get_and_where_to_put_it(places, name):
    pytest.importorskip("torch_fidelity")
    file = {"inception": weights.INCEPTION, "vgg16": weights.VGG16}[name]
    with pytest.raises(OSError) as info:
        load_extractor(name, weights_dir=places[0], offline=True)
    message = str(info.value)
    for part in (file.name, f"download {file.url} and put it into {places[0]}", "--extractor random-vgg"):
        assert part in message
    assert "\n" not in message


@pytest.fixture
def site(monkeypatch):
    """A server that has ``contents`` under every name."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "8")
            self.end_headers()
            self.wfile.write(b"contents")

        def log_message(self, *_):
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "STYLEFORGE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def test_what_is_nowhere_is_fetched_into_the_cache(places, site):
    path = locate(replace(FILE, url=site + FILE.name))
    assert path == places[1] / FILE.name
    assert path.read_bytes() == b"contents"


def test_a_download_that_is_not_what_was_published_is_refused(site, refuses):
    with refuses("SHA-256", "00000000"):
        locate(replace(FILE, url=site + FILE.name, sha256="00000000"))


def test_available_means_without_a_download(places, tmp_path):
    pytest.importorskip("torch_fidelity")
    assert not available("inception", places[0])
    (places[0] / INCEPTION.name).touch()
    assert available("inception", places[0])
    assert not available("vgg16", places[0])


class Trap:
    """Would make a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle"])
def test_a_malicious_file_is_refused_and_not_run(tmp_path, refuses, kind):
    pytest.importorskip("torch_fidelity")
    path, sprung = tmp_path / "evil.pth", tmp_path / "sprung"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    else:
        torch.save({"a": Trap(sprung)}, path, _use_new_zipfile_serialization=kind == "torch")
    with refuses("evil.pth", "damaged or holds more than tensors", "torch-fidelity's InceptionV3"):
        load_extractor("inception", path=path)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"not a file of weights", b"PK\x03\x04" + 100 * b"\0"])
def test_a_damaged_file_is_refused(tmp_path, refuses, content):
    (tmp_path / "a.pth").write_bytes(content)
    with refuses("a.pth", "damaged"):
        read(tmp_path / "a.pth", "something")


@pytest.mark.parametrize("holds", [[torch.zeros(1)], {"a": 1}, torch.zeros(1)])
def test_anything_but_a_table_of_tensors_is_refused(tmp_path, refuses, holds):
    torch.save(holds, tmp_path / "a.pth")
    with refuses("a.pth", "no table of tensors"):
        read(tmp_path / "a.pth", "something")


def test_the_digests_stand_in_the_published_names():
    for file in (weights.INCEPTION, weights.VGG16):
        assert re.search(rf"-{file.sha256}\.pth$", file.name)
        assert file.url.endswith(file.name)
