"""The calls that pickles of tensors and arrays make, answered without the functions that they name.

Everything that is not in the table at the end is refused. What a call hands over is checked before anything is built
from it: types, sizes against the bytes that are there, and the memory of the result against the file's.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from styleforge.convert.unpickle import Budget, Machine, Name, PersistentLoad, Record, Stream, new_object

MAX_NDIM = 8
"""Dimensions of a tensor or an array."""
_PER_VALUE = 64
"""Bytes that one value of a copied container is charged with."""

# Values from a pickle never go into a message as they are: the text of values that share values can be endless.

STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Class of a storage, in ``torch`` or ``torch.cuda``, to the type of its numbers."""
_NUMPY_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_BASES = tuple(Name(module, name) for module in ("builtins", "__builtin__") for name in ("object", "dict"))
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of PyTorch's format before 1.6, which is also that of storages inside other pickles."""


class Storage:
    """The numbers that tensors are views of: a flat tensor."""

    __slots__ = ("values",)

    def __init__(self, values: Tensor) -> None:
        self.values = values


class _DType:
    """A numpy type that the next instruction may still turn to another byte order."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype


class Calls:
    """Answers the calls of one file.

    Args:
        budget: What they may use up.
        nested: Whether this pickle lies in another one, and so may hold no further pickle.
    """

    def __init__(self, budget: Budget, nested: bool = False) -> None:
        self.budget, self.nested = budget, nested

    def __call__(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        """The value of a call, or a refusal."""
        answer = _ANSWERS.get(str(function).replace("numpy._core.", "numpy.core."))
        if answer is None:
            raise ValueError(f"got a call of {str(function)[:80]!r}, expected only what makes tensors and arrays")
        return answer(self, *arguments)

    def build(self, target: Any, state: Any) -> None:
        """Takes a state into an object, or refuses it."""
        if isinstance(target, _DType):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
            if not isinstance(order, str) or order not in ("<", ">", "|", "="):
                raise ValueError("got a numpy type in an unknown byte order")
            target.dtype = target.dtype.newbyteorder(order)  # type: ignore[arg-type]  # one of those above
        elif isinstance(target, np.ndarray):
            if not isinstance(state, tuple) or len(state) != 5:
                raise ValueError("got an array without a shape, a type and bytes")
            self._fill(target, *state)
        elif not isinstance(target, dict):  # a state_dict's metadata, which says nothing about its tensors
            raise ValueError(f"got a state for a {type(target).__name__}")

    def _fill(self, array: np.ndarray, _: Any, shape: Any, kind: Any, fortran: Any, raw: Any) -> None:
        if isinstance(raw, str):  # pickled by Python 2
            raw = raw.encode("latin1")
        dtype = _numeric(kind)
        self._require_bytes(raw, shape, dtype)
        array.__setstate__((1, shape, dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]  # any truth value does

    def _require_bytes(self, raw: Any, shape: Any, dtype: np.dtype) -> None:
        """Checks that bytes are as many as a shape takes."""
        if not isinstance(raw, bytes | bytearray) or not is_shape(shape):
            raise ValueError("got an array without bytes or a shape")
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise ValueError(f"got an array of shape {list(shape)} with {len(raw)} bytes")
        self.budget.charge(len(raw))

    # What makes arrays.

    def dtype(self, kind: Any, *_: Any) -> _DType:
        """``numpy.dtype("f4", …)``."""
        if not isinstance(kind, str) or kind not in _NUMPY_DTYPES:
            raise ValueError("got a numpy type of something other than numbers")
        return _DType(np.dtype(kind))

    def empty_array(self, cls: Any, *_: Any) -> np.ndarray:
        """``numpy.core.multiarray._reconstruct``: an array, to be filled."""
        if cls != Name("numpy", "ndarray"):
            raise ValueError("got an array of another class than numpy.ndarray")
        return np.empty(0, np.uint8)

    def scalar(self, kind: Any, raw: Any) -> Any:
        """One number of a numpy type."""
        if isinstance(raw, str):
            raw = raw.encode("latin1")
        dtype = _numeric(kind)
        self._require_bytes(raw, (), dtype)
        return np.frombuffer(raw, dtype)[0]

    def array_from(self, raw: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
        """``numpy.core.numeric._frombuffer``: protocol 5's arrays."""
        dtype = _numeric(kind)
        self._require_bytes(raw, shape, dtype)
        return np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")

    # What makes tensors.

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        """A view of a storage."""
        if not (isinstance(storage, Storage) and is_shape((offset,)) and is_shape(size) and is_shape(stride)):
            raise ValueError("got a tensor without a storage, a size or a stride")
        num = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if num and (last >= len(storage.values) or num > len(storage.values)):
            raise ValueError(f"got a tensor of shape {list(size)} in a storage of {len(storage.values)} numbers")
        self.budget.charge(num * storage.values.element_size())
        return torch.as_strided(storage.values, size, stride, offset if num else 0)

    def parameter(self, data: Any, *_: Any) -> Any:
        """A parameter is its data."""
        return data

    def storage(self, blob: Any) -> Storage:
        """A storage as a file of its own inside the pickle."""
        if self.nested or not isinstance(blob, bytes | bytearray):
            raise ValueError("got a storage that is no file of its own")
        self.budget.charge(len(blob))
        value = read_legacy(io.BytesIO(blob), len(blob), self.budget, nested=True)
        if not isinstance(value, Storage):
            raise ValueError("got a file inside the pickle that holds no storage")
        return value

    # Objects and containers.

    def persistent(self, meta: Any) -> Record:
        """An object of NVIDIA's persistent classes; their source code, which comes along, stays text."""
        name = meta.get("class_name") if isinstance(meta, dict) else None
        if not isinstance(name, str):
            raise ValueError("got a persistent object without the name of its class")
        return Record(name, state=meta.get("state"))

    def reconstructed(self, cls: Any, base: Any, _: Any = None) -> Any:
        """``copyreg._reconstructor``: an empty object."""
        if not isinstance(cls, Name) or base not in _BASES:
            raise ValueError("got an object on top of another class than object or dict")
        return new_object(cls)

    def ordered(self, pairs: Any = ()) -> dict[Any, Any]:
        """A dictionary."""
        if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            raise ValueError("got a dictionary made from something other than pairs")
        self.budget.charge(_PER_VALUE * len(pairs))
        return {self.budget.as_key(key): value for key, value in pairs}

    def default_dict(self, *_: Any) -> dict[Any, Any]:
        """A dictionary, without what would make its defaults."""
        return {}

    def set(self, values: Any = ()) -> Any:
        """A set."""
        if not isinstance(values, list | tuple | set | frozenset):
            raise ValueError("got a set made from something other than values")
        self.budget.charge(_PER_VALUE * len(values))
        return {self.budget.as_key(value) for value in values}

    def encoded(self, text: Any, encoding: Any = "latin1") -> bytes:
        """Bytes, as protocol 2 writes them."""
        if not isinstance(text, str) or not isinstance(encoding, str) or encoding != "latin1":
            raise ValueError("got bytes that are not written as Latin-1 text")
        self.budget.charge(len(text))
        return text.encode("latin1")

    def bytes_of(self, *arguments: Any) -> bytes:
        """``bytes()`` and ``bytearray(…)`` of bytes or Latin-1 text."""
        if not arguments:
            return b""
        if isinstance(arguments[0], str):
            return self.encoded(arguments[0], arguments[1] if len(arguments) > 1 else "latin1")
        if not isinstance(arguments[0], bytes):
            raise ValueError("got bytes made from something else")
        return arguments[0]

    def size(self, values: Any) -> tuple[int, ...]:
        """``torch.Size``."""
        if not isinstance(values, list | tuple) or len(values) > MAX_NDIM or not is_shape(tuple(values)):
            raise ValueError("got a size that is none")
        return tuple(values)

    def text(self, *parts: Any) -> str:
        """A device or a path, as text."""
        if len(parts) > 64:
            raise ValueError("got a device or a path of too many parts")
        text = "/".join(str(part)[:256] for part in parts if isinstance(part, str | int))
        self.budget.charge(len(text))
        return text


def is_shape(value: Any) -> bool:
    """Whether a value is a tuple of sizes that a tensor may have."""
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_NDIM
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 48 for n in value)
    )


def _numeric(kind: Any) -> np.dtype:
    if not isinstance(kind, _DType):
        raise ValueError("got an array without a numeric type")
    return kind.dtype


def dtype_of(storage_class: Any) -> torch.dtype:
    """The type of the numbers in a class of storages.

    Raises:
        ValueError: There is no such class.
    """
    module, name = (storage_class.module, storage_class.name) if isinstance(storage_class, Name) else ("", "")
    if module not in ("torch", "torch.cuda", "torch.storage") or name not in STORAGE_DTYPES:
        raise ValueError("got a storage of an unknown class, expected one of numbers")
    return STORAGE_DTYPES[name]


def storage_reference(key: Any) -> tuple[Any, str, int, Any]:
    """Takes the reference to a storage apart.

    Args:
        key: What stands in a pickle for the storage: a tuple.

    Returns:
        (class, name, length, which part of the storage it is; None for all).

    Raises:
        ValueError: It is none.
    """
    if isinstance(key, tuple) and len(key) in (5, 6):
        tag, cls, name, _, num, *view = key
        if isinstance(tag, str) and tag == "storage" and isinstance(name, str) and is_shape((num,)):
            return cls, name, num, view[0] if view else None
    raise ValueError("got a reference to something other than a storage")


def machine(stream: Stream, budget: Budget, persistent_load: PersistentLoad, nested: bool = False) -> Machine:
    """A machine that knows the calls of this module."""
    calls = Calls(budget, nested)
    return Machine(stream, budget, call=calls, build=calls.build, persistent_load=persistent_load)


def is_magic(value: Any) -> bool:
    """Whether the first value of a stream says that it is PyTorch's format before 1.6."""
    return isinstance(value, int) and value == _LEGACY_MAGIC


def read_legacy(stream: Stream, size: int, budget: Budget, *, nested: bool = False) -> Any:
    """Reads PyTorch's format before 1.6: four pickles, the keys of the storages, and the storages.

    Args:
        stream: From its beginning.
        size: Its length in bytes.
        budget: What may be used up.
        nested: Whether it lies in another pickle.

    Raises:
        ValueError: It is broken, or of another kind.
    """
    storages: dict[str, Storage] = {}

    def persistent_load(key: Any) -> Storage:
        cls, name, num, view = storage_reference(key)
        dtype = dtype_of(cls)
        if num * dtype.itemsize > size:
            raise ValueError("got a storage larger than the file that it lies in")
        if name not in storages:
            budget.charge(num * dtype.itemsize)
            storages[name] = Storage(torch.zeros(num, dtype=dtype))
        if view is not None:
            if not isinstance(view, tuple) or len(view) != 3 or not is_shape(view[1:]):
                raise ValueError("got a part of a storage without a start or a length")
            return Storage(storages[name].values[view[1] : view[1] + view[2]])
        return storages[name]

    one = machine(stream, budget, persistent_load, nested)
    if not is_magic(one.load()):
        raise ValueError("got a storage in an unknown format")
    one.load()  # the version of the format
    one.load()  # the sizes of C's types
    value = one.load()
    keys = one.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != storages.keys():
        raise ValueError("got other storages than the tensors need")
    for key in keys:
        values = storages[key].values
        raw = stream.read(8)
        if len(raw) != 8 or int.from_bytes(raw, "little") != len(values):
            raise ValueError("got a storage that is cut off")
        raw = stream.read(values.nbytes)
        if len(raw) != values.nbytes:
            raise ValueError("got a storage that is cut off")
        if raw:
            values.copy_(torch.frombuffer(bytearray(raw), dtype=values.dtype))
    return value


_ANSWERS = cast(
    "dict[str, Callable[..., Any]]",
    {
        "torch._utils._rebuild_tensor_v2": Calls.tensor,
        "torch._utils._rebuild_parameter": Calls.parameter,
        "torch._utils._rebuild_parameter_with_state": Calls.parameter,
        "torch.storage._load_from_bytes": Calls.storage,
        "torch.Size": Calls.size,
        "torch.device": Calls.text,
        "torch_utils.persistence._reconstruct_persistent_obj": Calls.persistent,
        "numpy.core.multiarray._reconstruct": Calls.empty_array,
        "numpy.core.multiarray.scalar": Calls.scalar,
        "numpy.core.numeric._frombuffer": Calls.array_from,
        "numpy.dtype": Calls.dtype,
        "collections.OrderedDict": Calls.ordered,
        "collections.defaultdict": Calls.default_dict,
        "copyreg._reconstructor": Calls.reconstructed,
        "copy_reg._reconstructor": Calls.reconstructed,
        "_codecs.encode": Calls.encoded,
        "builtins.set": Calls.set,
        "__builtin__.set": Calls.set,
        "builtins.frozenset": Calls.set,
        "__builtin__.frozenset": Calls.set,
        "builtins.bytes": Calls.bytes_of,
        "__builtin__.bytes": Calls.bytes_of,
        "builtins.bytearray": Calls.bytes_of,
        "__builtin__.bytearray": Calls.bytes_of,
        "pathlib.PosixPath": Calls.text,
        "pathlib.WindowsPath": Calls.text,
        "pathlib.PurePosixPath": Calls.text,
    },
)
