import hashlib
import http.server
import os
import threading
import time
from pathlib import Path

import pytest

from styleforge import downloads
from styleforge.downloads import cache_dir, fetch

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site:
    """What a server has, how it behaves, and what it was asked for."""

    def __init__(self):
        self.content = CONTENT
        self.version = '"1"'
        self.breaks_after = None  # bytes of a reply, then the connection ends
        self.knows_ranges = self.says_length = True
        self.asked = []  # the Range header of every request

    def url(self, name="file.bin"):
        return f"http://127.0.0.1:{self.port}/{name}"


def handler(site):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            site.asked.append(wanted)
            if self.path == "/garbage":
                self.wfile.write(b"garbage\r\n\r\n")
                return
            if self.path != "/file.bin":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and site.knows_ranges else 0
            body = site.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            if site.says_length:
                self.send_header("Content-Length", str(len(body)))
            if site.version:
                self.send_header("ETag", site.version)
            self.end_headers()
            self.wfile.write(body[: site.breaks_after])

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "STYLEFORGE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    site = Site()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(site)) as httpd:
        site.port = httpd.server_port
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield site
        httpd.shutdown()
        thread.join()


def broken(site, target, after):
    """Fetches until the connection breaks."""
    site.breaks_after, before = after, site.breaks_after
    with pytest.raises(OSError, match=r"could not be fetched .* broke off") as info:
        fetch(site.url(), target)
    assert "\n" not in str(info.value)
    assert not target.exists()
    site.breaks_after = before
    site.asked.clear()


def test_a_file_is_fetched_once(site, tmp_path):
    target = tmp_path / "made" / "file.bin"
    for _ in range(2):
        assert fetch(site.url(), target, sha256=SHA256) == target
    assert target.read_bytes() == CONTENT
    assert site.asked == [None]
    assert list(target.parent.iterdir()) == [target]


def test_a_broken_download_goes_on_where_it_stopped(site, tmp_path):
    target = tmp_path / "file.bin"
    broken(site, target, 300_000)
    broken(site, target, 200_000)
    fetch(site.url(), target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert site.asked == [None, "bytes=500000-"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_server_without_ranges_sends_everything_again(site, tmp_path):
    target = tmp_path / "file.bin"
    broken(site, target, 300_000)
    site.knows_ranges = False
    fetch(site.url(), target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_no_file_is_pieced_together_from_two_versions(site, tmp_path):
    target = tmp_path / "file.bin"
    broken(site, target, 300_000)
    site.content, site.version = CONTENT[::-1], '"2"'
    fetch(site.url(), target)
    assert target.read_bytes() == CONTENT[::-1]
    assert site.asked == [None]
    assert list(tmp_path.iterdir()) == [target]


def test_a_part_that_is_whole_is_not_fetched_again(site, tmp_path, monkeypatch):
    target = tmp_path / "file.bin"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        fetch(site.url(), target)
    fetch(site.url(), target)
    assert target.read_bytes() == CONTENT
    assert site.asked == [None, None]


def test_a_server_that_does_not_say_the_length_is_believed(site, tmp_path):
    site.says_length = False
    assert fetch(site.url(), tmp_path / "file.bin", sha256=SHA256).read_bytes() == CONTENT


def test_the_first_digits_of_a_digest_are_enough(site, tmp_path):
    assert fetch(site.url(), tmp_path / "file.bin", sha256=SHA256[:8].upper()).exists()


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(site, tmp_path, refuses):
    with refuses(site.url(), SHA256, "6726825d"):
        fetch(site.url(), tmp_path / "file.bin", sha256="6726825d")
    assert list(tmp_path.iterdir()) == []


def test_several_fetch_one_file_at_once(site, tmp_path, monkeypatch):
    target, results = tmp_path / "file.bin", []
    verify = downloads._verify
    monkeypatch.setattr(downloads, "_verify", lambda *arguments: (time.sleep(0.05), verify(*arguments)))
    threads = [
        threading.Thread(target=lambda: results.append(fetch(site.url(), target, sha256=SHA256))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [target] * 5
    assert target.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline_refuses_what_is_not_there_and_takes_what_is(site, tmp_path, monkeypatch, by):
    target = tmp_path / "file.bin"
    if by == "environment":
        monkeypatch.setenv("STYLEFORGE_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"downloads are forbidden, expected one at .*file\.bin; allow"):
        fetch(site.url(), target, offline=by == "argument")
    assert site.asked == []
    target.write_bytes(b"")
    assert fetch(site.url(), target, offline=by == "argument") == target


def test_an_environment_of_0_is_online(site, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_OFFLINE", "0")
    assert fetch(site.url(), tmp_path / "file.bin").exists()


def test_what_cannot_be_fetched_is_said_and_leaves_nothing(site, tmp_path):
    for bad in (site.url("nosuch"), site.url("garbage"), "http://127.0.0.1:1/a", "http:///a"):
        with pytest.raises(OSError, match=r"could not be fetched .*; try again, or put it at .* by hand") as info:
            fetch(bad, tmp_path / "a")
        assert str(info.value).startswith(bad) and "\n" not in str(info.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(site, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied"):
        fetch(site.url(), tmp_path / "file.bin")


def test_the_cache_lies_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", "/a/b")
    assert cache_dir() == Path("/a/b")
    monkeypatch.delenv("STYLEFORGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_dir() == Path("/c/styleforge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert cache_dir() == Path("/home/x/.cache/styleforge")


def test_a_file_that_is_too_long_is_refused_by_what_the_server_says(site, tmp_path, refuses):
    with refuses(site.url(), f"{len(CONTENT):,} bytes", f"at most {len(CONTENT) - 1:,}"):
        fetch(site.url(), tmp_path / "file.bin", max_bytes=len(CONTENT) - 1)
    assert list(tmp_path.iterdir()) == []
    assert fetch(site.url(), tmp_path / "file.bin", max_bytes=len(CONTENT)).exists()


def test_a_file_of_unsaid_length_is_refused_once_too_much_came(site, tmp_path, refuses, monkeypatch):
    monkeypatch.setattr(downloads, "_BLOCK", 1 << 12)
    site.says_length = False
    with refuses(site.url(), "more than 100,000 bytes"):
        fetch(site.url(), tmp_path / "file.bin", max_bytes=100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_more_of_a_part_than_it_said_is_refused(site, tmp_path, refuses):
    target = tmp_path / "file.bin"
    broken(site, target, 300_000)
    with refuses("at most 500,000"):
        fetch(site.url(), target, max_bytes=500_000)
