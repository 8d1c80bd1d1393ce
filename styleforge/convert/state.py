"""What the converters share: states of tensors or arrays, inference of configs, loading that misses nothing."""
# Shapes: r nominal resolution of a block (4, 8, 16, …).

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def as_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies a mapping of names to tensors, arrays or numbers into one of float32 tensors.

    Raises:
        ValueError: A value that is none of these.
    """
    tensors = {}
    for name, value in state.items():
        try:
            tensors[name] = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value).float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name}: got {type(value).__name__}, expected a tensor or an array of numbers; convert it first"
            ) from error
    return tensors


def take(state: Mapping[str, Tensor], name: str, what: str) -> Tensor:
    """One tensor of a state.

    Raises:
        ValueError: The state has none of that name.
    """
    if name not in state:
        raise ValueError(
            f"{what}: got a state without {name!r}, expected all tensors of the official layout; "
            "is the file complete, and of this kind?"
        )
    return state[name]


def count_layers(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many of ``pattern.format(0)``, ``pattern.format(1)``, … the state has, without a gap."""
    num = 0
    while pattern.format(num) in state:
        num += 1
    return num


def infer_channels(channels: Sequence[int], what: str) -> tuple[int, int]:
    """Finds channel_base and channel_max from the channels of each block.

    Args:
        channels: Channels at r = 4, 8, 16, …
        what: The network's name, for the message.

    Returns:
        (channel_base, channel_max) with min(channel_base // r, channel_max) equal to every entry.

    Raises:
        ValueError: No such pair exists.
    """
    channel_max = max(channels)
    # channels = base // r below the maximum means base in [channels·r, (channels + 1)·r); at it, base >= channels·r.
    low, high = 1, None
    for i, num in enumerate(channels):
        r = 4 << i
        low = max(low, num * r)
        if num < channel_max:
            high = min(high or (num + 1) * r, (num + 1) * r)
    if list(channels) != [min(low // (4 << i), channel_max) for i in range(len(channels))] or (high and low >= high):
        raise ValueError(
            f"{what}: got {', '.join(map(str, channels))} channels from the lowest resolution up, expected "
            "min(channel_base / r, channel_max) at every resolution r; such a network has no config here"
        )
    return low, channel_max


def load_exactly(network: Network, state: Mapping[str, Tensor], names: Mapping[str, str], what: str) -> Network:
    """Fills a network with a state under other names, and refuses to leave anything over on either side.

    Args:
        network: What to fill; changed in place.
        state: The tensors under our names.
        names: Our name -> the name in the file, for messages.
        what: The network's name, for messages.

    Returns:
        The network.

    Raises:
        ValueError: A tensor is missing, superfluous, or of another shape.
    """
    want = network.state_dict()
    for name in sorted(want.keys() - state.keys()):
        take({}, names.get(name, name), what)
    for name in sorted(state.keys() - want.keys()):
        raise ValueError(
            f"{what}: got a tensor {names.get(name, name)!r} that this architecture does not have, expected the official "
            "layout; is it a network of another kind or a changed one?"
        )
    for name, tensor in state.items():
        if tensor.shape != want[name].shape:
            raise ValueError(
                f"{what}: got shape {list(tensor.shape)} for {names.get(name, name)!r}, expected "
                f"{list(want[name].shape)} as the other tensors tell; is the file a mixture?"
            )
    network.load_state_dict(dict(state))
    return network
