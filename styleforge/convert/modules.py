"""PyTorch modules out of pickles: their tensors under the names of a state dict, and their plain attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from styleforge.convert.unpickle import Record

MAX_NAME = 200
"""Characters of a name or a path: names inside names must not grow without end."""
MAX_ENTRIES = 200_000
"""Of one network, in all its modules: those that hold themselves, or share what they hold, would never end. NVIDIA's
have some thousands."""

Attributes = dict[str, dict[str, Any]]
"""Path of a module, as ``mapping.fc0``, to its numbers, texts and so on."""


def is_module(value: Any) -> bool:
    """Whether a record is that of a ``torch.nn.Module``."""
    return isinstance(value, Record) and isinstance(value.state, Mapping) and "_modules" in value.state


def flatten(module: Record, what: str) -> tuple[dict[str, Tensor], Attributes]:
    """Takes a module apart.

    Args:
        module: For which `is_module` holds.
        what: Its name, for messages.

    Returns:
        (what its state dict would hold, the attributes of it and of every module inside).

    Raises:
        ValueError: A module inside is none, there is no end to them, or a name that no module takes.
    """
    state: dict[str, Tensor] = {}
    attributes: Attributes = {}
    waiting: list[tuple[str, Any]] = [("", module)]
    num_entries = 0
    while waiting:
        path, one = waiting.pop()
        parts = [one.state.get(key) for key in ("_modules", "_parameters", "_buffers")] if is_module(one) else []
        if not parts or not all(isinstance(part, Mapping) for part in parts):
            raise ValueError(f"{what}: got modules that are damaged, expected those of a network; take another copy")
        hidden = one.state.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set | frozenset | list | tuple) else ()
        num_entries += len(one.state) + len(hidden) + sum(map(len, parts))
        if num_entries > MAX_ENTRIES:
            raise ValueError(f"{what}: got modules without end, expected those of a network; take another copy")
        children, parameters, buffers = parts
        names = [*children, *parameters, *buffers]
        if len(path) > MAX_NAME or not all(map(_is_name, names)) or len(set(names)) < len(names):
            raise ValueError(
                f"{what}: got modules with names that are none, too long, or there twice, expected those of a network"
            )
        prefix = f"{path}." if path else ""
        waiting += [(f"{prefix}{name}", child) for name, child in children.items() if child is not None]
        hidden_names = {name for name in hidden if isinstance(name, str)}
        for name, tensor in {**parameters, **buffers}.items():
            if tensor is not None and name not in hidden_names:
                state[f"{prefix}{name}"] = tensor
        attributes[path] = {key: value for key, value in one.state.items() if _is_plain(value)}
    return state, attributes


def _is_name(value: Any) -> bool:
    """Whether PyTorch takes a value as a name in a module; the dot joins names to paths."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and "." not in value


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | list | dict | np.number | None)
