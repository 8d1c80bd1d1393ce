"""Writing a dataset: a zip or a folder that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

from styleforge.data.sources import METADATA


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of the new dataset."""

    source: str
    """Its name in the source."""
    file: str
    """Its name in the dataset."""
    notes: tuple[str, ...]
    """What was done to it."""
    fingerprint: str
    """Digest of its source, to notice a change."""


class Writer(ABC):
    """Collects pictures beside the target, under the target's name with ``.partial`` at the end.

    Attributes:
        entries: The pictures written so far.
    """

    def __init__(self, dest: Path) -> None:
        self.dest = dest
        self.partial = dest.with_name(dest.name + ".partial")
        self.entries: list[Entry] = []
        dest.parent.mkdir(parents=True, exist_ok=True)

    def add(self, data: bytes, suffix: str, *, source: str, notes: tuple[str, ...], fingerprint: str) -> None:
        """Writes the next picture, a thousand to a folder."""
        i = len(self.entries)
        entry = Entry(source, f"{i // 1000:05d}/img{i:08d}{suffix}", notes, fingerprint)
        self._write(entry, data)
        self.entries.append(entry)

    @abstractmethod
    def _write(self, entry: Entry, data: bytes) -> None: ...

    @abstractmethod
    def finish(self, metadata: bytes) -> None:
        """Adds ``dataset.json`` and gives the dataset its name."""

    @abstractmethod
    def stop(self) -> None:
        """Ends early: keeps what can be taken up again, removes what cannot."""

    def discard(self) -> None:
        """Removes everything written."""
        if self.partial.is_dir():
            shutil.rmtree(self.partial, ignore_errors=True)
        else:
            self.partial.unlink(missing_ok=True)


class ZipWriter(Writer):
    """Writes an uncompressed zip; takes up one that was interrupted if it still fits.

    While the zip is partial, each entry's comment holds its `Entry`, and the zip's comment the settings.

    Args:
        dest: The zip's name.
        settings: A digest of all that shapes the pictures.
        still_valid: Whether a picture of an interrupted run may stay.
    """

    def __init__(self, dest: Path, settings: str, still_valid: Callable[[Entry], bool]) -> None:
        super().__init__(dest)
        self._settings = settings.encode()
        found = self._found_entries()
        self.entries = found if all(map(still_valid, found)) else []
        self._zip = zipfile.ZipFile(self.partial, "a" if self.entries else "w")
        self._zip.comment = self._settings
        # A thread of its own writes, since Ctrl-C strikes the main thread alone: no entry is cut in the middle.
        self._pen = ThreadPoolExecutor(1)

    def _found_entries(self) -> list[Entry]:
        """What an interrupted run has left; nothing unless all of it is sound."""
        try:
            with zipfile.ZipFile(self.partial) as archive:
                if archive.comment != self._settings:
                    return []
                comments = [json.loads(info.comment) for info in archive.infolist()]
            return [Entry(source, file, tuple(notes), fingerprint) for source, file, notes, fingerprint in comments]
        except (OSError, zipfile.BadZipFile, ValueError, TypeError):
            return []

    def _write(self, entry: Entry, data: bytes) -> None:
        self._pen.submit(self._write_now, entry, data).result()

    def _write_now(self, entry: Entry, data: bytes) -> None:
        info = _zip_info(entry.file)
        self._zip.writestr(info, data)
        info.comment = json.dumps(astuple(entry)).encode()

    def finish(self, metadata: bytes) -> None:
        """Adds ``dataset.json`` and gives the zip its name."""
        self._pen.shutdown()
        self._zip.writestr(_zip_info(METADATA), metadata)
        for info in self._zip.infolist():
            info.comment = b""
        self._zip.comment = b""
        self._zip.close()
        self.partial.replace(self.dest)

    def stop(self) -> None:
        """Closes the partial zip, to be taken up by the next run."""
        if self.entries:
            self._pen.shutdown()
            self._zip.close()
        else:
            self.discard()

    def discard(self) -> None:
        """Removes the partial zip."""
        self._pen.shutdown()
        file, self._zip.fp = self._zip.fp, None  # so that the zip will not add its directory, perhaps to a full disk
        with contextlib.suppress(OSError):
            if file is not None:
                file.close()
        super().discard()


class FolderWriter(Writer):
    """Writes a folder of files."""

    def __init__(self, dest: Path) -> None:
        super().__init__(dest)
        self.discard()
        self.partial.mkdir()

    def _write(self, entry: Entry, data: bytes) -> None:
        path = self.partial / entry.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    def finish(self, metadata: bytes) -> None:
        """Adds ``dataset.json`` and gives the folder its name; an old dataset there goes when the new one stands."""
        (self.partial / METADATA).write_bytes(metadata)
        old = self.dest.with_name(self.dest.name + ".old")
        if self.dest.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.dest.replace(old)
        self.partial.replace(self.dest)
        if old.exists():
            shutil.rmtree(old)

    def stop(self) -> None:
        """Removes the partial folder."""
        self.discard()


def open_writer(dest: Path, settings: str, still_valid: Callable[[Entry], bool]) -> Writer:
    """A writer for a target whose name ends in ``.zip``, or else for a folder; first see `check_dest`."""
    return ZipWriter(dest, settings, still_valid) if _is_zip(dest) else FolderWriter(dest)


def check_dest(dest: Path, source: Path, *, overwrite: bool) -> None:
    """Makes sure that writing to a target would destroy nothing.

    Raises:
        ValueError: The target is the source or inside it, exists while `overwrite` is off, or is a folder that does
            not look like a dataset.
    """
    inner, outer = dest.resolve(), source.resolve()
    if inner == outer or (not _is_zip(dest) and outer in inner.parents):
        raise ValueError(f"{dest}: the target lies in the source {source}, expected another place")
    if _is_zip(dest):
        if dest.is_dir():
            raise ValueError(f"{dest}: is a folder, expected the name of a new zip file")
        if dest.exists() and not overwrite:
            raise ValueError(f"{dest}: exists already; choose another name or add --overwrite")
    elif dest.exists():
        if not dest.is_dir():
            raise ValueError(f"{dest}: is a file, expected a name that ends in .zip or a new folder")
        if any(dest.iterdir()) and not (overwrite and (dest / METADATA).is_file()):
            raise ValueError(
                f"{dest}: is not empty; choose another name, or add --overwrite if it is a dataset (with {METADATA})"
            )


def _zip_info(file: str) -> zipfile.ZipInfo:
    """An entry that depends on neither clock nor system, so that the same pictures make the same zip."""
    info = zipfile.ZipInfo(file, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, 0o644 << 16  # Unix, readable by all
    return info


def _is_zip(dest: Path) -> bool:
    return dest.suffix.lower() == ".zip"
