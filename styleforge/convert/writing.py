"""Checkpoints for others: what a target can hold is written exactly, the rest is refused or listed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styleforge import checkpoint
from styleforge.checkpoint import Checkpoint
from styleforge.convert import nvlabs, onnx, rosinality
from styleforge.convert.card import make_card, origin
from styleforge.convert.graphs import Noise, Part, export_program
from styleforge.convert.reading import NAMES, OURS_KEY, ROSINALITY_KEYS, Network
from styleforge.files import atomic_path

TARGETS = {
    "safetensors": checkpoint.SUFFIX,
    "official": ".pth",
    "rosinality": ".pt",
    "onnx": ".onnx",
    "torch-export": ".pt2",
}
"""Kind of file -> the ending that stands for it."""


def target_of(path: str | Path) -> str:
    """The kind of file that an ending stands for.

    Raises:
        ValueError: None.
    """
    for target, suffix in TARGETS.items():
        if Path(path).suffix == suffix:
            return target
    endings = ", ".join(f"{suffix} ({target})" for target, suffix in TARGETS.items())
    raise ValueError(f"{path}: got no known ending, expected one of {endings}; or say which kind it is (--to)")


def write(
    loaded: Checkpoint,
    path: str | Path,
    target: str | None = None,
    *,
    part: Part = "whole",
    noise: Noise = "const",
) -> list[str]:
    """Writes a checkpoint as a file of another kind, with a model card in it.

    ``safetensors`` holds everything. ``official`` holds state dicts ``G``, ``D``, ``G_ema`` under the names of
    NVIDIA's PyTorch releases, with their constructors' arguments as ``init_kwargs``; ``rosinality`` is a checkpoint of
    rosinality/stylegan2-pytorch. Both open with ``torch.load(path, weights_only=True)``, and come back here bit for
    bit. ``onnx`` and ``torch-export`` hold the generator that makes pictures.

    Args:
        loaded: What to write.
        path: Target file.
        target: A key of `TARGETS`; None follows the ending.
        part: Of ``onnx`` and ``torch-export``: ``whole``, ``mapping`` or ``synthesis``.
        noise: Of the same: ``const``, ``input`` or ``none``.

    Returns:
        What the file does not hold, or only for styleforge; a line each.

    Raises:
        ValueError: The target cannot hold these networks, or there is no such target.
        OSError: The file cannot be written; an older one stays as it was.
    """
    target = target_of(path) if target is None else target
    if target not in TARGETS:
        raise ValueError(f"to: got {target!r}, expected one of {', '.join(TARGETS)}; choose one of these")
    missing = unheld(loaded, target)
    card = make_card(loaded, missing)
    info = {key: value for key, value in loaded.info.items() if key not in ("source", "card")}
    info |= {"origin": origin(loaded)} if origin(loaded) else {}
    if target == "safetensors":
        networks: dict[str, Any] = _networks(loaded)
        checkpoint.save(path, config=loaded.config, training=loaded.training, info=info | {"card": card}, **networks)
    elif target in _STATES:
        contents = _STATES[target](loaded)
        contents["card"] = json.dumps(card)
        contents[OURS_KEY] = json.dumps(
            {
                "networks": {name: network.config.to_dict() for name, network in _networks(loaded).items()},
                "config": loaded.config,
                "info": info,
            }
        )
        buffer = io.BytesIO()  # on a full disk, PyTorch's own writing ends in an error of its insides
        torch.save(contents, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    else:
        export = onnx.export if target == "onnx" else export_program
        export(loaded.generator, path, part=part, noise=noise, card=card)
    return missing


def unheld(loaded: Checkpoint, target: str) -> list[str]:
    """What a kind of file would not hold of a checkpoint, or hold for styleforge alone; a line each.

    Raises:
        ValueError: It cannot hold these networks at all.
    """
    if target == "safetensors":
        return []
    networks, found = _networks(loaded), []
    if target == "official":
        for network in networks.values():
            nvlabs.require_official(network)
    elif target == "rosinality":
        for name, network in networks.items():
            rosinality.require_rosinality(network)
            found += [f"{name}: {line} (kept for styleforge alone)" for line in rosinality.unheld(network)]
    else:
        loaded.generator  # noqa: B018  # there must be one
        found += [
            f"{name}: the graph is of the generator that makes pictures" for name in ("G", "D") if name in networks
        ]
        if loaded.generator.config.progressive:
            found.append("levels of detail: the graph is of full resolution")
    if loaded.training:
        found.append(f"the training state ({len(loaded.training)} tensors): training goes on from safetensors alone")
    return found


def _networks(loaded: Checkpoint) -> dict[str, Network]:
    return {name: network for name in NAMES if (network := getattr(loaded, name)) is not None}


def _official(loaded: Checkpoint) -> dict[str, Any]:
    networks = _networks(loaded)
    contents: dict[str, Any] = {name: _copies(nvlabs.to_state(network)) for name, network in networks.items()}
    return contents | {"init_kwargs": {name: nvlabs.constructor(network) for name, network in networks.items()}}


def _rosinality(loaded: Checkpoint) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    for name, network in _networks(loaded).items():
        contents[ROSINALITY_KEYS[name]] = _copies(rosinality.to_state(network))
    if loaded.G is not None:
        contents["latent_avg_g"] = loaded.G.w_avg.clone()  # G's own, which only we read
    if loaded.G is not None or loaded.G_ema is not None:
        contents["latent_avg"] = loaded.generator.w_avg.clone()
    return contents


_STATES: Mapping[str, Callable[[Checkpoint], dict[str, Any]]] = {"official": _official, "rosinality": _rosinality}


def _copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, so that a file holds nothing twice or in part."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
