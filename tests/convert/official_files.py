"""Files in the layouts of the official releases, made from names and arrays: what their own code would have pickled.

The modules and classes that such pickles name are put in place while one is written, and taken away again, so that the
reader cannot lean on them.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

SOURCE = "import torch\nraise RuntimeError('the source code inside a pickle was executed')\n"
BUFFERS = ("resample_filter", "noise_const", "w_avg")


def _class(module: str, name: str, base: type = object) -> type:
    return type(name, (base,), {"__module__": module, "__qualname__": name})


EasyDict = _class("dnnlib.util", "EasyDict", dict)
Network = _class("dnnlib.tflib.network", "Network")


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("called by a pickle")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent(torch.nn.Module):
    """A module of a persistent class: it is pickled with its source code, and all that a module keeps about itself."""

    def __init__(self, class_name: str, **attributes: Any) -> None:
        super().__init__()
        self._class_name = class_name
        self.__dict__.update(attributes)

    def __reduce__(self) -> tuple[Any, ...]:
        state = super().__reduce__()[2]
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self._class_name, "state": state}
        return _reconstruct_persistent_obj, (meta,), None


@contextmanager
def _modules_in_place() -> Iterator[None]:
    contents = {
        "dnnlib": {}, "dnnlib.util": {"EasyDict": EasyDict}, "dnnlib.tflib": {},
        "dnnlib.tflib.network": {"Network": Network}, "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
    }  # fmt: skip
    for name, attributes in contents.items():
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in contents:
            del sys.modules[name]


def dump(value: Any, path: Path, protocol: int = 4) -> Path:
    """Pickles a value as the releases do."""
    with _modules_in_place(), path.open("wb") as file:
        pickle.dump(value, file, protocol=protocol)
    return path


def as_module(
    state: Mapping[str, np.ndarray], class_name: str, attributes: Mapping[str, dict[str, Any]] | None = None
) -> Persistent:
    """A tree of persistent modules from a flat state dict.

    Args:
        state: Names to arrays.
        class_name: Of the outermost module.
        attributes: Path of a module -> further attributes of it.
    """

    root = Persistent(class_name, **(attributes or {}).get("", {}))
    for name, array in state.items():
        *path, leaf = name.split(".")
        module = root
        for i, part in enumerate(path):
            if part not in module._modules:
                own = (attributes or {}).get(".".join(path[: i + 1]), {})
                module.add_module(part, Persistent("Layer", weight_gain=np.float64(0.25), **own))
            module = module._modules[part]
        tensor = torch.tensor(array)
        if leaf in BUFFERS:
            module.register_buffer(leaf, tensor)
        else:
            module.register_parameter(leaf, torch.nn.Parameter(tensor))
    return root.eval().requires_grad_(False)


def official_pickle(path: Path, networks: Mapping[str, Persistent], protocol: int = 4) -> Path:
    """A ``network-snapshot-….pkl`` of StyleGAN2-ADA or StyleGAN3."""
    contents: dict[str, Any] = dict(networks)
    contents["augment_pipe"] = Persistent("AugmentPipe")
    contents["training_set_kwargs"] = EasyDict(class_name="training.dataset.ImageFolderDataset", resolution=32)
    return dump(contents, path, protocol)


def tf_network(
    variables: Mapping[str, np.ndarray], order: list[str], name: str, func: str, kwargs: dict[str, Any], version: int
) -> Any:
    """A network of the TensorFlow releases, its mapping and synthesis networks inside."""
    network = Network()
    parts: dict[str, list[tuple[str, Any]]] = {"": [], "G_synthesis": [], "G_mapping": []}
    for full in order:
        prefix = full.split("/")[0] if full.startswith("G_") else ""
        value = variables[full]
        parts[prefix].append((full[len(prefix) :].lstrip("/"), value[()] if value.ndim == 0 else value))
    components = {}
    for prefix in ("G_synthesis", "G_mapping"):
        if parts[prefix]:
            inner = Network()
            inner.__dict__ = _state(parts[prefix], prefix, prefix, kwargs, version)
            components[prefix.removeprefix("G_")] = inner
    network.__dict__ = _state(parts[""], name, func, kwargs, version) | {"components": components}
    return network


def _state(pairs: list[tuple[str, Any]], name: str, func: str, kwargs: dict[str, Any], version: int) -> dict[str, Any]:
    return {
        "version": version,
        "name": name,
        "static_kwargs": dict(kwargs),
        "components": {},
        "build_module_src": SOURCE,
        "build_func_name": func.split(".")[-1],
        "variables": pairs,
    }
