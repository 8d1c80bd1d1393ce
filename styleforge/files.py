"""Files that are written whole or not at all, and logs that grow line by line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PART = ".part"
"""In the names of files that are being written: ``.<stem>.<random>.part<ending>``, beside their target."""

_DISK_ERRORS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "EIO", "ENOTDIR", "EISDIR", "EEXIST")
    if hasattr(errno, name)
}


def append_line(path: str | Path, values: Mapping[str, Any]) -> None:
    """Appends one JSON object as a line to a file, which is made with its folder if it is missing.

    Raises:
        OSError: The file could not be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Writes an object as JSON for people and programs, whole or not at all; the folder is made if it is missing.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside a target, and moves it over the target when the block ends without an error.

    Args:
        path: The target; its folder is made if it is missing.

    Yields:
        A path in the same folder with the same ending, for a new file.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=PART + path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("r+b") as file:  # Windows wants the right to write
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        temporary.replace(path)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise  # not about this file, such as a broken connection that it was to be filled from
        raise OSError(
            f"{path}: could not be written ({error.strerror}); free some space or choose another place"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
