"""Research archives that come without picture files: CIFAR-10 (both official archives) and MNIST-style idx files."""
# Shapes: N pictures, H W picture size, C channels.

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

IDX_UNSIGNED_BYTE = 0x08


class _InertArray:
    """Stands in for a numpy array while a CIFAR batch is unpickled: keeps the raw state and runs nothing."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> np.ndarray:
        """The array that the state describes, taken for one of bytes."""
        _, shape, _, fortran_order, data = self.state
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _InertDtype:
    """Stands in for a numpy dtype; CIFAR's arrays are bytes, so that its content does not matter."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _encode(text: str, _: str) -> bytes:
    """Stands in for ``_codecs.encode``, through which Python 3 writes bytes in the old protocols."""
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _InertArray,
    ("numpy._core.multiarray", "_reconstruct"): _InertArray,
    ("numpy", "ndarray"): _InertArray,
    ("numpy", "dtype"): _InertDtype,
}


class _CifarUnpickler(pickle.Unpickler):
    """Reads dicts, lists, bytes, strings and numbers, and the outer shell of numpy arrays.

    A pickle can name any function and have it called. The only names admitted here lead to the inert things
    above, so that nothing of the archive's choosing is ever imported or run.
    """

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ADMITTED:
            raise ValueError(f"names {module}.{name}, which no CIFAR batch needs and which could run code")
        return _ADMITTED[module, name]


def _pickled_batch(data: bytes) -> tuple[np.ndarray, list[int]]:
    """Pixels [N, 3072] uint8 and labels of one batch of ``cifar-10-python.tar.gz``."""
    batch = _CifarUnpickler(io.BytesIO(data), encoding="bytes").load()
    return batch[b"data"].pixels(), [int(label) for label in batch[b"labels"]]


def _binary_batch(data: bytes) -> tuple[np.ndarray, list[int]]:
    """Pixels [N, 3072] uint8 and labels of one batch of ``cifar-10-binary.tar.gz``: a label byte, then the pixels."""
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + 3072)
    return records[:, 1:], records[:, 0].tolist()


def read_cifar10(path: Path) -> tuple[np.ndarray, list[int]]:
    """Reads the training pictures of CIFAR-10 without unpacking the archive.

    Args:
        path: ``cifar-10-python.tar.gz`` or ``cifar-10-binary.tar.gz``.

    Returns:
        Pictures [N, 32, 32, 3] uint8 in the archive's order, and their classes.

    Raises:
        ValueError: The archive is no CIFAR-10, is damaged, or holds a pickle that asks for anything but numbers.
    """
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    try:
        with tarfile.open(path, "r:*") as archive:
            batches = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            for name in sorted(name for name in batches if name.startswith("data_batch_")):
                stream = archive.extractfile(batches[name])
                assert stream is not None  # only regular files are listed
                read = _binary_batch if name.endswith(".bin") else _pickled_batch
                batch_pixels, batch_labels = read(stream.read())
                if len(batch_pixels) != len(batch_labels):
                    raise ValueError(f"{name} holds {len(batch_pixels)} pictures and {len(batch_labels)} labels")
                pixels.append(batch_pixels)
                labels += batch_labels
        if not pixels:
            raise ValueError("holds no data_batch_ files")
        pictures = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # [N, 32, 32, 3]
    except Exception as error:  # a damaged archive can raise almost anything
        if isinstance(error, OSError) and not isinstance(error, (tarfile.TarError, gzip.BadGzipFile)):
            raise
        raise ValueError(
            f"{path}: expected the official cifar-10-python.tar.gz or cifar-10-binary.tar.gz, "
            f"but it cannot be read as one ({error}); download it anew"
        ) from error
    return np.ascontiguousarray(pictures), labels


def _read_idx(path: Path) -> np.ndarray:
    """Reads an idx file of unsigned bytes: two zero bytes, the type, the number of axes, each length, the values."""
    try:
        data = gzip.decompress(path.read_bytes())
        zeros, kind, axes = struct.unpack_from(">HBB", data)
        if zeros != 0 or kind != IDX_UNSIGNED_BYTE:
            raise ValueError("no idx file of unsigned bytes")
        shape = struct.unpack_from(f">{axes}I", data, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (gzip.BadGzipFile, EOFError, zlib.error, struct.error, ValueError) as error:
        raise ValueError(f"{path}: expected an MNIST file in idx format, but it cannot be read ({error})") from error


def read_mnist(path: Path) -> tuple[np.ndarray, list[int] | None]:
    """Reads MNIST or a data set in its format, padded from 28×28 to 32×32 with black as the field does.

    Args:
        path: The pictures, such as ``train-images-idx3-ubyte.gz``; the labels are taken from the file beside it
            whose name says ``labels-idx1`` in place of ``images-idx3``, when there is one.

    Returns:
        Pictures [N, H, W, 1] uint8, and their classes or None.

    Raises:
        ValueError: A file is not in idx format, or there are more or fewer labels than pictures.
    """
    pictures = _read_idx(path)  # [N, H, W]
    if pictures.ndim != 3:
        raise ValueError(
            f"{path}: got an idx file with {pictures.ndim} axes, expected pictures with 3 "
            f"(such as train-images-idx3-ubyte.gz)"
        )
    if pictures.shape[1:] == (28, 28):
        pictures = np.pad(pictures, [(0, 0), (2, 2), (2, 2)])  # [N, 32, 32]
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    if beside == path or not beside.exists():
        return pictures[..., None], None
    labels = _read_idx(beside)
    if labels.shape != pictures.shape[:1]:
        raise ValueError(f"{beside}: got {labels.size} labels for the {len(pictures)} pictures of {path.name}")
    return pictures[..., None], labels.tolist()
