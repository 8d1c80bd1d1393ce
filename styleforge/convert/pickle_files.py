"""Files that are pickles, or hold them: plain ones, and PyTorch's formats before and since 1.6."""

from __future__ import annotations

import codecs
import io
import mmap
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from styleforge.convert.pickle_calls import Storage, dtype_of, is_magic, machine, read_legacy, storage_reference
from styleforge.convert.unpickle import Budget, guarded

ZIP_MAGIC = b"PK\x03\x04"
for _encoding in ("ascii", "cp437", "latin1", "raw-unicode-escape"):  # those of pickles and of zip archives' names:
    codecs.lookup(_encoding)  # loaded now, so that reading a file imports nothing at all

_FIRST = {opcode.code for opcode in pickletools.opcodes}
"""Characters that a pickle may begin with."""
MAX_ENTRIES = 100_000
"""Of one archive."""


def read(path: str | Path) -> Any:
    """Reads a pickle, or a file of ``torch.save``, without executing anything.

    Args:
        path: The file; its kind follows from its contents.

    Returns:
        What it holds: dictionaries, lists, tuples, sets, numbers, text, bytes, tensors on the CPU, arrays, and a
        `styleforge.convert.unpickle.Record` for each object of a class.

    Raises:
        ValueError: The file is damaged, of another kind, or asks for a call that tensors do not need.
        OSError: It cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        start, size = file.read(4), path.stat().st_size
        if start == ZIP_MAGIC:
            return _read_zip(path)
        if chr(start[0] if start else 0) not in _FIRST:
            raise ValueError(
                f"{path}: got {'a file of an unknown kind' if size else 'an empty file'}, expected a checkpoint of "
                "styleforge, a pickle, or a file of torch.save"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream, guarded(str(path)):
            budget = Budget(size)
            value = machine(stream, budget, _no_storage).load()
            if is_magic(value):
                stream.seek(0)
                return read_legacy(stream, size, budget)
            return value


def _no_storage(_: Any) -> Any:
    raise ValueError("got a reference to data outside the pickle")


def _read_zip(path: Path) -> Any:
    """PyTorch's format since 1.6: an uncompressed zip with ``data.pkl`` and one entry for each storage."""
    broken = zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, struct.error, zlib.error
    try:
        _require_few_entries(path)
        archive = zipfile.ZipFile(path)
    except (*broken, ValueError) as error:  # names that are no text
        raise ValueError(
            f"{path}: got a zip archive that is damaged or cut off ({error}), expected a file of torch.save; "
            "take another copy"
        ) from error
    with archive, guarded(str(path)):
        try:
            return _read_archive(archive, path.stat().st_size)
        except broken as error:
            raise ValueError(f"got a damaged zip archive ({error})") from error


def _require_few_entries(path: Path) -> None:
    """Refuses an archive that lists more entries than any checkpoint has, before each becomes an object."""
    with path.open("rb") as file:
        num = sum(block.count(b"PK\x01\x02") for block in iter(lambda: file.read(1 << 20), b""))
    if num > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES:,} entries")


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    names = archive.namelist()
    found = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise ValueError("got a zip archive that no torch.save wrote, expected data.pkl in it")
    folder = found[0].removesuffix("data.pkl")
    budget, storages = Budget(size), {}

    def entry(name: str) -> bytes:
        info = archive.getinfo(folder + name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise ValueError(f"got a compressed entry {name!r}")
        budget.charge(info.file_size)
        return archive.read(info)

    def persistent_load(key: Any) -> Storage:
        cls, name, num, view = storage_reference(key)
        if view is not None:
            raise ValueError("got a part of a storage, which this format does not have")
        if name not in storages:
            dtype, raw = dtype_of(cls), entry(f"data/{name}")
            if len(raw) != num * dtype.itemsize:
                raise ValueError(f"got {len(raw)} bytes for a storage of {num} numbers")
            values = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
            storages[name] = Storage(values)
        return storages[name]

    if folder + "byteorder" in names and entry("byteorder") != b"little":
        raise ValueError("got numbers with the highest byte first, expected the lowest first; save them again")
    return machine(io.BytesIO(entry("data.pkl")), budget, persistent_load).load()
