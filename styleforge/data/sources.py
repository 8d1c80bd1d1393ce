"""Where pictures come from: a zip, a folder, an LMDB or a research archive, all read in the same way.

A source lists the names of its pictures, sorted, and reads one picture's bytes. It may be pickled and forked: file
handles are opened on first use and once more in every new process, since processes that share a handle would move
each other's read position.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from styleforge.data.archives import read_cifar10, read_mnist
from styleforge.images import SUFFIXES

if TYPE_CHECKING:
    import lmdb

METADATA = "dataset.json"
"""Name of the label file inside a dataset."""


class Source(ABC):
    """Encoded pictures under sorted names.

    Attributes:
        path: Where the source lies.
        names: Names of all pictures, sorted, with ``/`` between folders.
    """

    kind = "source"

    def __init__(self, path: Path, names: list[str]) -> None:
        if not names:
            endings = " ".join(SUFFIXES)
            raise ValueError(f"{path}: got a {self.kind} without pictures, expected files that end in one of {endings}")
        self.path = path
        self.names = sorted(names)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """One picture as it was encoded; OSError or ValueError if it cannot be had."""

    def open(self, name: str) -> IO[bytes]:
        """A stream of one picture, for reading no more than its header."""
        return io.BytesIO(self.read(name))

    @abstractmethod
    def fingerprint(self, name: str) -> str:
        """A cheap digest that changes when the picture does."""

    def metadata(self) -> dict[str, Any] | None:
        """The content of ``dataset.json``, or None where there is no such file.

        Raises:
            ValueError: It is not JSON, or not an object.
        """
        text = self._metadata_bytes()
        if text is None:
            return None
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{self.path}: {METADATA} is not valid JSON ({error})") from error
        if not isinstance(content, dict):
            raise ValueError(f'{self.path}: {METADATA} must look like {{"labels": [["name.png", 6], ...]}} or null')
        return content

    @abstractmethod
    def _metadata_bytes(self) -> bytes | None: ...


class FolderSource(Source):
    """A folder of pictures, with all folders below it."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        super().__init__(path, self._walk(path))

    @staticmethod
    def _walk(root: Path) -> list[str]:
        names: list[str] = []
        seen: set[str] = set()
        for folder, subfolders, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link that leads back up
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
            names += [Path(folder, name).relative_to(root).as_posix() for name in files if _is_picture(name)]
        return names

    def read(self, name: str) -> bytes:
        """One picture's file."""
        return (self.path / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        """The open file."""
        return (self.path / name).open("rb")

    def fingerprint(self, name: str) -> str:
        """Size and time of change: reading a whole folder for a digest would take as long as using it."""
        status = (self.path / name).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _metadata_bytes(self) -> bytes | None:
        path = self.path / METADATA
        return path.read_bytes() if path.is_file() else None


class ZipSource(Source):
    """A zip of pictures, stored or deflated."""

    kind = "zip"

    def __init__(self, path: Path) -> None:
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        self.path = path
        self._sums = {info.filename: (info.file_size, info.CRC) for info in self._zip().infolist()}
        super().__init__(path, [name for name in self._sums if _is_picture(name)])

    def _zip(self) -> zipfile.ZipFile:
        """This process's handle."""
        if self._handle is None or self._handle[0] != os.getpid():
            try:
                self._handle = (os.getpid(), zipfile.ZipFile(self.path))
            except zipfile.BadZipFile as error:
                raise ValueError(
                    f"{self.path}: expected a zip of pictures, but this is no zip, or one that was cut short"
                ) from error
        return self._handle[1]

    def read(self, name: str) -> bytes:
        """One entry, its checksum verified."""
        try:
            return self._zip().read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"damaged or locked zip entry: {error}") from error

    def open(self, name: str) -> IO[bytes]:
        """The entry as a stream."""
        try:
            return self._zip().open(name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"damaged or locked zip entry: {error}") from error

    def fingerprint(self, name: str) -> str:
        """Size and CRC, which the zip's directory holds."""
        size, crc = self._sums[name]
        return f"{size}-{crc:08x}"

    def _metadata_bytes(self) -> bytes | None:
        return self.read(METADATA) if METADATA in self._sums else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


class _LmdbHandle:
    """An open LMDB and the process it belongs to."""

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise ValueError(f'{path}: reading an LMDB needs an extra: pip install "styleforge[lmdb]"') from error
        self.process = os.getpid()
        try:
            self.environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
            needed = (self.environment.info()["last_pgno"] + 1) * self.environment.stat()["psize"]
        except lmdb.Error as error:
            raise ValueError(f"{path}: expected an LMDB folder, but it cannot be opened ({error})") from error
        found = (path / "data.mdb").stat().st_size
        if found < needed:  # reading the missing part of the map would kill the process
            self.environment.close()
            raise ValueError(f"{path}: data.mdb was cut short, got {found} bytes of {needed}; copy it anew")


class LmdbSource(Source):
    """An LMDB folder as LSUN distributes it: each value an encoded picture. Needs the extra ``lmdb``.

    Labels may be stored under the key ``dataset.json``.
    """

    kind = "LMDB"
    # All sources of one path share a handle, since LMDB forbids to open a file twice in a process. The handle closes
    # with the last of them.
    _handles: ClassVar[WeakValueDictionary[Path, _LmdbHandle]] = WeakValueDictionary()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: _LmdbHandle | None = None
        with self._environment().begin() as transaction:
            keys = [key.decode("utf-8", "surrogateescape") for key in transaction.cursor().iternext(values=False)]
        super().__init__(path, [key for key in keys if key not in (METADATA, "length", "__len__", "__keys__")])

    def _environment(self) -> lmdb.Environment:
        """This process's environment."""
        if self._handle is None or self._handle.process != os.getpid():
            path = self.path.resolve()
            shared = self._handles.get(path)
            if shared is not None and shared.process != os.getpid():
                shared.environment.close()  # inherited by a fork; without a lock file, the parent does not notice
                shared = None
            self._handle = shared or _LmdbHandle(path)
            self._handles[path] = self._handle
        return self._handle.environment

    def _get(self, key: str) -> bytes | None:
        with self._environment().begin() as transaction:
            value: bytes | None = transaction.get(key.encode("utf-8", "surrogateescape"))
        return value

    def read(self, name: str) -> bytes:
        """One value."""
        value = self._get(name)
        if value is None:
            raise ValueError("no such key in the LMDB")
        return value

    def fingerprint(self, name: str) -> str:
        """Size of the value, with size and time of change of the whole file."""
        with self._environment().begin(buffers=True) as transaction:
            size = len(transaction.get(name.encode("utf-8", "surrogateescape"), b""))  # mapped, not read
        status = (self.path / "data.mdb").stat()
        return f"{size}-{status.st_size}-{status.st_mtime_ns}"

    def _metadata_bytes(self) -> bytes | None:
        return self._get(METADATA)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


class ArraySource(Source):
    """Pictures from an archive of plain numbers, given out as PNG files.

    Args:
        path: Where they were read.
        pictures: [N, H, W, C] uint8, C being 1 or 3.
        labels: Class of each picture.
    """

    kind = "archive"

    def __init__(self, path: Path, pictures: np.ndarray, labels: list[int] | None) -> None:
        self._pictures = pictures
        super().__init__(path, [f"img{i:08d}.png" for i in range(len(pictures))])
        self._labels = None if labels is None else list(zip(self.names, labels, strict=True))

    def _picture(self, name: str) -> np.ndarray:
        picture: np.ndarray = self._pictures[int(name[3:11])]
        return picture[:, :, 0] if picture.shape[2] == 1 else picture

    def read(self, name: str) -> bytes:
        """The picture as an uncompressed PNG."""
        stream = io.BytesIO()
        Image.fromarray(self._picture(name)).save(stream, "png", compress_level=0)
        return stream.getvalue()

    def fingerprint(self, name: str) -> str:
        """Checksum of the pixels."""
        return f"{zlib.crc32(self._picture(name).tobytes()):08x}"

    def _metadata_bytes(self) -> bytes | None:
        return json.dumps({"labels": self._labels}).encode()


def open_source(path: str | Path) -> Source:
    """Opens whatever holds pictures at a path.

    Args:
        path: A zip, a folder, an LMDB folder (it holds ``data.mdb``), ``cifar-10-python.tar.gz``,
            ``cifar-10-binary.tar.gz``, or MNIST's ``train-images-idx3-ubyte.gz``.

    Raises:
        ValueError: There is no picture in it, it is damaged, or it is something else.
        FileNotFoundError: Nothing lies there.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder, expected a zip, a folder or an LMDB of pictures")
    if path.is_dir():
        return LmdbSource(path) if (path / "data.mdb").is_file() else FolderSource(path)
    if path.name.endswith((".tar.gz", ".tgz")):
        return ArraySource(path, *read_cifar10(path))
    if path.name.endswith("ubyte.gz"):
        return ArraySource(path, *read_mnist(path))
    return ZipSource(path)


def dataset_name(path: str | Path) -> str:
    """A dataset's short name: the file name without its endings, or the folder's name."""
    path = Path(path).resolve()
    if path.is_dir():
        return path.name
    return path.name.removesuffix(".tar.gz") if path.name.endswith(".tar.gz") else path.stem


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's own, such as ``.DS_Store`` or ``__MACOSX``."""
    return name.startswith((".", "__MACOSX"))


def _is_picture(name: str) -> bool:
    """Whether a name, with its folders, is that of a picture."""
    parts = PurePosixPath(name).parts
    return name.lower().endswith(SUFFIXES) and not any(_is_hidden(part) for part in parts)
