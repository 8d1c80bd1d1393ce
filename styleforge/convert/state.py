"""What the converters share: states of tensors or arrays, inference of configs, loading that misses nothing."""
# Shapes: r nominal resolution of a block (4, 8, 16, …).

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from styleforge.networks.config import Architecture, DiscriminatorConfig, GeneratorConfig, NetworkConfig

Network = TypeVar("Network", bound=nn.Module)
Config = TypeVar("Config", bound=NetworkConfig)
Layout = Callable[[Tensor], Tensor]
Sources = Mapping[str, tuple[str, Layout]]
"""Our name -> (the name in the file, what turns the file's layout into ours)."""

MAX_LAYERS = 100
"""Of one kind in a network; a damaged name must not ask for millions."""
_MAX_GROWTH = 4
WHOLE_BATCH = 1 << 16
"""As a group of the minibatch standard deviation: the whole minibatch, which some releases take."""


class Refusals:
    """Says what a target cannot be.

    Args:
        target: What it is, for messages.
    """

    def __init__(self, target: str) -> None:
        self.target = target

    def unless(self, possible: bool, what: str) -> None:
        """Refuses a network.

        Args:
            possible: Whether the target can hold it.
            what: What it has that the target lacks.

        Raises:
            ValueError: It cannot.
        """
        if not possible:
            raise ValueError(
                f"{self.target}: got a network with {what}, expected one without; "
                "keep it as safetensors, or export it to ONNX"
            )

    def require_stylegan2(self, config: NetworkConfig) -> None:
        """Refuses what only our networks and those of StyleGAN have."""
        self.unless(config.plan.base == (4, 4), f"pictures of {config.resolution}, not a square of a power of two")
        self.unless(not config.progressive, "progressive growing")
        if isinstance(config, GeneratorConfig):
            self.unless(config.style_block == "demodulation", f"the style block {config.style_block!r}")
            self.unless(config.use_styles, "no styles")
            self.unless(config.constant_input, "a traditional input")
        elif isinstance(config, DiscriminatorConfig):
            self.unless(config.convention == "stylegan2", "StyleGAN's discriminator")


def as_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Turns a mapping of names to tensors, arrays or numbers into one of float32 tensors.

    Raises:
        ValueError: A value that is none of these.
    """
    tensors = {}
    for name, value in state.items():
        try:
            if not isinstance(value, Tensor | np.ndarray | np.number | int | float):
                raise TypeError  # lists that share lists can be without end
            tensors[name] = torch.as_tensor(value if isinstance(value, Tensor) else np.array(value)).float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name}: got {type(value).__name__}, expected a tensor or an array of numbers; convert it first"
            ) from error
    return tensors


def as_number(value: Any, what: str) -> float:
    """A number out of a file; anything else is refused without being looked into.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise ValueError(f"{what}: got a {type(value).__name__}, expected a number; is the file damaged?")
    return value if isinstance(value, int | float) else value.item()


def as_group(value: Any) -> int:
    """A group size of the minibatch standard deviation out of a file: None stands for the whole minibatch.

    Raises:
        ValueError: It is no number.
    """
    return WHOLE_BATCH if value is None else max(int(as_number(value, "minibatch standard deviation")), 1)


def as_clamp(value: Any) -> float | None:
    """A limit on the activations out of a file: a number or None.

    Raises:
        ValueError: It is neither.
    """
    return None if value is None else as_number(value, "clamp on activations")


def take(state: Mapping[str, Tensor], name: str, what: str, ndim: int | None = None) -> Tensor:
    """One tensor of a state.

    Raises:
        ValueError: The state has none of that name, or it has another number of dimensions than ``ndim``.
    """
    if name not in state:
        raise ValueError(
            f"{what}: got a state without {name!r}, expected all tensors of the official layout; "
            "is the file complete, and of this kind?"
        )
    if ndim is not None and state[name].ndim != ndim:
        raise ValueError(
            f"{what}: got shape {list(state[name].shape)} for {name!r}, expected {ndim} dimensions; "
            "is the file of this kind?"
        )
    return state[name]


def has(state: Mapping[str, Any], *parts: str) -> bool:
    """Whether any name holds one of the parts.

    What a network consists of is read from all names, so that one missing tensor is reported as missing instead of
    making the network look like another one.
    """
    return any(part in name for part in parts for name in state)


def count_layers(state: Mapping[str, Any], prefix: str) -> int:
    """How many layers ``<prefix>0``, ``<prefix>1``, … there are: one more than the highest number.

    Raises:
        ValueError: More than `MAX_LAYERS`.
    """
    pattern = re.compile(re.escape(prefix) + r"(\d{1,9})\b")
    num = max((int(match[1]) + 1 for name in state if (match := pattern.match(name))), default=0)
    if num > MAX_LAYERS:
        raise ValueError(f"{prefix}: got layer {num - 1:,}, expected {MAX_LAYERS} layers at most; is the file damaged?")
    return num


def block_sides(state: Mapping[str, Tensor], pattern: str, what: str) -> list[int]:
    """The resolutions 4, 8, … of the blocks, which the first group of ``pattern`` finds in the names.

    Raises:
        ValueError: There are less than two, or one is missing in between.
    """
    sides = sorted({int(match[1]) for name in state if (match := re.match(pattern, name))})
    if len(sides) < 2 or sides != [4 << i for i in range(len(sides))]:
        raise ValueError(
            f"{what}: got blocks of {', '.join(f'{side}×{side}' for side in sides) or 'no known name'}, expected "
            "4×4, 8×8, … without a gap; are these the weights of an official network?"
        )
    return sides


def infer_architecture(state: Mapping[str, Tensor], rgb: Sequence[str], skip: str) -> Architecture:
    """The architecture: ``skip`` has RGB layers below the last resolution, ``resnet`` has skips beside its layers.

    Args:
        state: The network's tensors.
        rgb: What the names of RGB layers start with, for each resolution but the last.
        skip: Part of the names of the resnet's skips.
    """
    return "skip" if has(state, *rgb) else "resnet" if has(state, skip) else "orig"


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
    # base // r >= channels bounds the base from below; if any base fits, the lowest one within the bounds does.
    channel_base = max(num * (4 << i) for i, num in enumerate(channels))
    if list(channels) != [min(channel_base // (4 << i), channel_max) for i in range(len(channels))]:
        raise ValueError(
            f"{what}: got {', '.join(map(str, channels))} channels from the lowest resolution up, expected "
            "min(channel_base / r, channel_max) at every resolution r; such a network has no config here"
        )
    return channel_base, channel_max


def make(network_class: Callable[[Config], Network], config: Config, state: Mapping[str, Tensor], what: str) -> Network:
    """Makes a network for a state, unless it is far larger than the state: a few long biases would ask for terabytes.

    Args:
        network_class: `Generator` or `Discriminator`.
        config: Its config, as inferred from the state.
        state: The tensors.
        what: The network's name, for messages.

    Raises:
        ValueError: The state has not nearly the tensors for it.
    """
    have = sum(tensor.numel() for tensor in state.values())
    with torch.device("meta"):
        need = sum(tensor.numel() for tensor in network_class(config).state_dict().values())
    if need > _MAX_GROWTH * have + (1 << 20):
        raise ValueError(
            f"{what}: got {have:,} numbers, expected {need:,} for a network of such layers; is the file complete?"
        )
    return network_class(config)


def load_exactly(network: Network, state: Mapping[str, Tensor], sources: Sources, what: str) -> Network:
    """Fills a network with a state under other names, and refuses to leave anything over on either side.

    Args:
        network: What to fill; changed in place.
        state: The tensors under the file's names.
        sources: Where each of the network's tensors comes from.
        what: The network's name, for messages.

    Returns:
        The network.

    Raises:
        ValueError: A tensor is missing, superfluous, or of another shape.
    """
    want = network.state_dict()
    assert sources.keys() == want.keys()
    tensors = {}
    for ours, (theirs, layout) in sources.items():
        tensor = take(state, theirs, what)
        try:
            tensors[ours] = layout(tensor)
        except (IndexError, RuntimeError):
            tensors[ours] = tensor  # a layout for another number of dimensions: reported below
        if tensors[ours].shape != want[ours].shape:
            raise ValueError(
                f"{what}: got shape {list(tensor.shape)} for {theirs!r}, expected {want[ours].numel()} numbers that "
                f"make {list(want[ours].shape)} here, as the other tensors tell; is the file a mixture?"
            )
    for name in sorted(state.keys() - {theirs for theirs, _ in sources.values()}):
        raise ValueError(
            f"{what}: got a tensor {name!r} that this architecture does not have, expected the official layout; "
            "is it a network of another kind or a changed one?"
        )
    network.load_state_dict(tensors)
    return network
