"""PyTorch modules out of pickles: their tensors under the names of a state dict, and their plain attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from styleforge.convert.unpickle import Record

MAX_NAME = 1000
"""Characters of a name or a path: names inside names must not grow without end."""
MAX_MODULES = 10_000
"""Of one network, where modules that hold themselves would never end."""

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
        ValueError: A module inside is none, or there is no end to them.
    """
    state: dict[str, Tensor] = {}
    attributes: Attributes = {}
    waiting: list[tuple[str, Any]] = [("", module)]
    while waiting:
        path, one = waiting.pop()
        parts = [one.state.get(key) for key in ("_modules", "_parameters", "_buffers")] if is_module(one) else []
        if len(attributes) > MAX_MODULES or not all(isinstance(part, Mapping) for part in parts) or not parts:
            raise ValueError(f"{what}: got modules that are damaged, expected those of a network; take another copy")
        children, parameters, buffers = parts
        names = [*children, *parameters, *buffers]
        if len(path) > MAX_NAME or not all(isinstance(name, str) and len(name) <= MAX_NAME for name in names):
            raise ValueError(f"{what}: got modules with names that are none, expected those of a network")
        prefix = f"{path}." if path else ""
        waiting += [(f"{prefix}{name}", child) for name, child in children.items() if child is not None]
        hidden = one.state.get("_non_persistent_buffers_set") or ()
        for name, tensor in {**parameters, **buffers}.items():
            if tensor is not None and name not in hidden:
                state[f"{prefix}{name}"] = tensor
        attributes[path] = {key: value for key, value in one.state.items() if _is_plain(value)}
    return state, attributes


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | list | dict | np.number | None)
