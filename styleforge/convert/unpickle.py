"""A reader of pickles that cannot execute anything.

A pickle is a program for a small stack machine, and Python's own machine calls whatever the program names. This one
has the same instructions but no way to import or to call: a class becomes a `Record` that only remembers its name, and
the few calls that tensors and arrays need are answered by `styleforge.convert.pickle_calls`. All else
is refused in one sentence. Instructions, nesting and memory are limited, so that a broken file ends as soon as a good
one does.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

MAX_INSTRUCTIONS = 500_000
"""Of one file, with all pickles inside; the official networks of 1024×1024 take less than a quarter."""
MAX_DEPTH = 500
"""Of values inside values."""
MAX_NUMBER_KEYS = 10_000
"""Numbers as keys of dictionaries, in one file: they can be made to collide, so that each takes as long as all before.
Optimizers of PyTorch up to 1.5 have them, one for each parameter."""
MAX_BITS = 1024
"""Of one whole number."""
MAX_NAME = 200
"""Characters of a module or of a name in it: each object of a class keeps them."""

Stream = IO[bytes] | mmap.mmap
PersistentLoad = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Name:
    """What a pickle calls by name, never imported."""

    module: str
    """Such as ``torch._utils``."""
    name: str
    """Such as ``_rebuild_tensor_v2``."""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """An object of a class that was not imported: a name and what was stored with it."""

    cls: str
    """The class, such as ``dnnlib.tflib.network.Network``."""
    state: Any = None
    """What the pickle hands to the object, mostly a dict of its attributes."""
    items: dict[Any, Any] = field(default_factory=dict)
    """What it puts into the object by key."""
    values: list[Any] = field(default_factory=list)
    """What it appends to the object."""


class Budget:
    """How much one file may still ask for, together with all pickles inside it.

    Args:
        size: The file's length in bytes; what is built from it may take a small multiple of that.
    """

    def __init__(self, size: int) -> None:
        self.instructions = MAX_INSTRUCTIONS
        self.memory = 4 * size + (1 << 20)
        self.number_keys = MAX_NUMBER_KEYS

    def step(self) -> None:
        """Takes one instruction."""
        self.instructions -= 1
        if self.instructions < 0:
            raise ValueError(f"got more than {MAX_INSTRUCTIONS:,} instructions, expected a pickle of networks")

    def charge(self, num_bytes: int) -> None:
        """Takes memory that one instruction can ask for without bringing it along in the file."""
        self.memory -= num_bytes
        if self.memory < 0:
            raise ValueError("got values many times larger than their file, expected tensors that lie in it")

    def as_key(self, value: Any) -> Any:
        """A value that may be a key of a dictionary: text, bytes, a whole number, None.

        Raises:
            ValueError: Anything else, or too many numbers; hashing them could take for ever.
        """
        if isinstance(value, str | bytes | bool | None):
            return value
        if not isinstance(value, int):
            raise ValueError(f"got a {type(value).__name__} as the key of a dictionary, expected text or a number")
        self.number_keys -= 1
        if self.number_keys < 0:
            raise ValueError(f"got more than {MAX_NUMBER_KEYS:,} numbers as keys of dictionaries, expected names")
        return value

    def pairs(self, values: list[Any]) -> Iterator[tuple[Any, Any]]:
        """Keys and values in turn, as pairs."""
        if len(values) % 2:
            raise ValueError("got a key without a value")
        return zip(map(self.as_key, values[::2]), values[1::2], strict=True)


class Machine:
    """Runs one pickle after the other from a stream.

    Args:
        stream: Where the pickles lie.
        budget: What they may use up.
        call: Answers a call of a name with arguments, or refuses it.
        build: Takes a state into an object other than a `Record`, or refuses it.
        persistent_load: Finds what lies outside the pickle, by its id.
    """

    def __init__(
        self,
        stream: Stream,
        budget: Budget,
        *,
        call: Callable[[Name, tuple[Any, ...]], Any],
        build: Callable[[Any, Any], None],
        persistent_load: PersistentLoad,
    ) -> None:
        self.stream, self.budget = stream, budget
        self.call, self.build, self.persistent_load = call, build, persistent_load

    def load(self) -> Any:
        """The value of the next pickle.

        Raises:
            ValueError: It is broken, or asks for what this machine does not do.
        """
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(self.stream):  # type: ignore[arg-type]  # mmap reads as files do
            self.budget.step()
            if opcode.name == "STOP":
                break
            if opcode.name in _LITERALS:
                if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
                    raise ValueError(f"got a whole number of {argument.bit_length():,} bits")
                self.stack.append(argument)
                continue
            if opcode.name not in _INSTRUCTIONS:
                raise ValueError(f"got the instruction {opcode.name}, which no network needs")
            _INSTRUCTIONS[opcode.name](self, argument)
        value = self._pop()
        check_depth(value)
        return value

    def _pop(self) -> Any:
        if not self.stack or (self.marks and self.marks[-1] >= len(self.stack)):
            raise ValueError("got an instruction that takes more values than there are")
        return self.stack.pop()

    def _top(self) -> Any:
        self.stack.append(self._pop())
        return self.stack[-1]

    def _pop_mark(self) -> list[Any]:
        """All values above the last mark."""
        if not self.marks:
            raise ValueError("got an instruction that needs a mark, without one")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _mark(self, _: Any) -> None:
        if len(self.marks) >= MAX_DEPTH:
            raise ValueError(f"got more than {MAX_DEPTH} values inside each other")
        self.marks.append(len(self.stack))

    def _discard(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._pop()

    def _tuple_of(self, count: int) -> None:
        self.stack.append(tuple(reversed([self._pop() for _ in range(count)])))

    def _name(self, module: Any, name: Any) -> None:
        self.stack.append(_checked_name(module, name))

    def _get(self, index: Any) -> None:
        if int(index) not in self.memo:
            raise ValueError(f"got a reference to value {index}, which is not there")
        self.stack.append(self.memo[int(index)])

    def _put(self, index: Any) -> None:
        self.memo[int(index)] = self._top()

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Record):
            target.values.extend(values)
        elif isinstance(target, set):
            target.update(map(self.budget.as_key, values))
        else:
            raise ValueError(f"got values to put into a {type(target).__name__}")

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        target = target.items if isinstance(target, Record) else target
        if not isinstance(target, dict):
            raise ValueError(f"got keys and values to put into a {type(target).__name__}")
        target.update(self.budget.pairs(values))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("got a call of something that is no name")
        self.stack.append(self.call(function, arguments))

    def _new(self, cls: Any, arguments: Any, keywords: Any = None) -> None:
        """An object of a class: a dict for dictionaries, else a record. Nothing is handed to the class."""
        if not isinstance(cls, Name):
            raise ValueError("got an object of no class")
        if not (isinstance(arguments, tuple | list) and isinstance(keywords, dict | None)) or arguments or keywords:
            raise ValueError(f"got an object of {str(cls)[:80]!r} made from arguments")
        self.stack.append(new_object(cls))

    def _new_object(self, _: Any) -> None:
        arguments, cls = self._pop(), self._pop()
        self._new(cls, arguments)

    def _new_object_keywords(self, _: Any) -> None:
        keywords, arguments, cls = self._pop(), self._pop(), self._pop()
        self._new(cls, arguments, keywords)

    def _old_object(self, _: Any) -> None:
        cls, *arguments = self._pop_mark() or [None]
        self._new(cls, arguments)

    def _old_instance(self, path: Any) -> None:
        arguments = self._pop_mark()
        self._new(_checked_name(*path.split(" ", 1)), arguments)

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Record):
            target.state = state
        else:
            self.build(target, state)


def _checked_name(module: Any, name: Any) -> Name:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("got a name that is no text")
    if len(module) > MAX_NAME or len(name) > MAX_NAME:
        raise ValueError(f"got a name of more than {MAX_NAME} characters")
    return Name(module, name)


def new_object(cls: Name) -> Any:
    """An empty object of a class."""
    return {} if str(cls) in _DICTS else Record(str(cls))


def check_depth(value: Any) -> None:
    """Refuses values nested deeper than `MAX_DEPTH`, each looked at once, however often it is shared."""
    seen: set[int] = set()
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for one in level:
            if id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, Record):
                inside += [one.state, one.items, one.values]
            elif isinstance(one, dict):
                inside += one.values()
            elif isinstance(one, list | tuple | set | frozenset):
                inside += one
        level = inside
        if not level:
            return
    raise ValueError(f"got more than {MAX_DEPTH} values inside each other")


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turns whatever is wrong with a pickle into one sentence.

    Args:
        what: The file, for the message.

    Raises:
        ValueError: The pickle is broken, cut off, or asks for what this reader does not do.
    """
    try:
        yield
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        OverflowError,
        AttributeError,
        EOFError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        reason = reason if reason.startswith("got ") else f"got a damaged or cut-off pickle ({reason})"
        if "expected" not in reason:
            reason += ", expected a whole pickle of tensors, arrays, numbers and text alone"
        raise ValueError(
            f"{what}: {reason}; nothing in it was executed; take another copy, or one from a source that you trust"
        ) from error


_DICTS = {"collections.OrderedDict", "collections.defaultdict", "dnnlib.util.EasyDict", "dnnlib.EasyDict"}
_LITERALS = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "MARK": Machine._mark,
    "POP": Machine._discard,
    "POP_MARK": lambda m, _: m._pop_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m._top()),
    "LIST": lambda m, _: m.stack.append(m._pop_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m._pop_mark())),
    "TUPLE1": lambda m, _: m._tuple_of(1),
    "TUPLE2": lambda m, _: m._tuple_of(2),
    "TUPLE3": lambda m, _: m._tuple_of(3),
    "DICT": lambda m, _: m.stack.append(dict(m.budget.pairs(m._pop_mark()))),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(map(m.budget.as_key, m._pop_mark()))),
    "APPEND": lambda m, _: m._append([m._pop()]),
    "APPENDS": lambda m, _: m._append(m._pop_mark()),
    "ADDITEMS": lambda m, _: m._append(m._pop_mark()),
    "SETITEM": lambda m, _: m._set_items([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, _: m._set_items(m._pop_mark()),
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": lambda m, _: m._put(len(m.memo)),
    "GLOBAL": lambda m, path: m._name(*path.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m._name(*[m._pop(), m._pop()][::-1]),
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._new_object,
    "NEWOBJ_EX": Machine._new_object_keywords,
    "OBJ": Machine._old_object,
    "INST": Machine._old_instance,
    "BUILD": Machine._build,
    "PERSID": lambda m, key: m.stack.append(m.persistent_load(key)),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent_load(m._pop())),
}
