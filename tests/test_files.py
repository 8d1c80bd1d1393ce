import errno
import json
import stat

import pytest

from styleforge.files import append_line, atomic_path, write_json


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_is_named_and_the_older_file_stays(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"old")
    with pytest.raises(OSError, match=r"x\.npz: could not be written \(No space left"), atomic_path(tmp_path / "x.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "x.npz") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "x.npz").read_bytes() == b"old"
    assert names_in(tmp_path) == ["x.npz"]


def test_a_new_file_has_the_ending_of_its_target(tmp_path):
    with atomic_path(tmp_path / "new" / "x.tar.gz") as temporary:
        assert temporary.suffix == ".gz" and temporary.parent == tmp_path / "new"
        temporary.write_bytes(b"new")
    assert (tmp_path / "new" / "x.tar.gz").read_bytes() == b"new"


def test_other_errors_pass_through_as_they_are(tmp_path):
    with pytest.raises(ConnectionResetError, match="reset by peer"), atomic_path(tmp_path / "x"):
        raise ConnectionResetError(errno.ECONNRESET, "reset by peer")
    assert names_in(tmp_path) == []


def test_the_file_is_for_whom_the_umask_says(tmp_path):
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_bytes(b"new")
    (tmp_path / "y").write_bytes(b"new")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "y").stat().st_mode)


def test_lines_are_appended_to_a_file_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    for i in range(2):
        append_line(path, {"i": i, "name": "é"})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"i": 0, "name": "é"},
        {"i": 1, "name": "é"},
    ]


def test_an_object_is_written_as_json_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": [1, 2.5], "name": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2.5], "name": "é"}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8"))["a"] == [1, 2.5] and names_in(path.parent) == ["a.json"]
