"""What the converters share: states of tensors or arrays, inference of configs, loading that misses nothing."""
# Shapes: r nominal resolution of a block (4, 8, 16, …).

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from styleforge.checkpoint import MAX_LAYERS, MAX_SIDE, Network, NetworkConfigs, filled, shapes_of
from styleforge.networks.config import Architecture, DiscriminatorConfig, GeneratorConfig, NetworkConfig

Layout = Callable[[Tensor], Tensor]
Sources = Mapping[str, tuple[str, Layout]]
"""Our name -> (the name in the file, what turns the file's layout into ours)."""

_MAX_GROWTH = 4
_MAX_TAPS = 16
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

    What lies under several names is turned once: a small file can name one array again and again.

    Raises:
        ValueError: A value that is none of these, or a name that is no text.
    """
    tensors: dict[str, Tensor] = {}
    turned: dict[int, Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise ValueError(f"state: got a {type(name).__name__} as a name, expected text; is the file damaged?")
        if id(value) not in turned:
            try:
                if not isinstance(value, Tensor | np.ndarray | np.number | int | float):
                    raise TypeError  # lists that share lists can be without end
                turned[id(value)] = torch.as_tensor(value if isinstance(value, Tensor) else np.array(value)).float()
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"{shown(name)}: got {type(value).__name__}, expected a tensor or an array of numbers; "
                    "convert it first"
                ) from error
        tensors[name] = turned[id(value)]
    return tensors


def shown(name: Any) -> str:
    """A name out of a file, for messages: quoted, short, on one line."""
    text = str(name)
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def as_number(value: Any, what: str) -> float:
    """A number out of a file; anything else is refused without being looked into.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, np.ndarray | np.number) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{what}: got a {type(value).__name__}, expected a number; is the file damaged?")
    if not abs(value) <= 1e12:  # nor not a number
        raise ValueError(f"{what}: got {value:.6g}, expected a number of a network; is the file damaged?")
    return value


def as_positive(value: Any, what: str) -> float:
    """A number above 0 out of a file; see `as_number`."""
    number = as_number(value, what)
    if number <= 0:
        raise ValueError(f"{what}: got {number:g}, expected a number above 0; is the file damaged?")
    return number


def as_flag(value: Any, what: str) -> bool:
    """A truth value out of a file.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, bool | np.bool_ | int | None):
        raise ValueError(f"{what}: got a {type(value).__name__}, expected true or false; is the file damaged?")
    return bool(value)


def as_taps(value: Any, what: str) -> list[float]:
    """The taps of a filter out of a file.

    Raises:
        ValueError: They are no short list of numbers.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1 and len(value) <= _MAX_TAPS:
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) > _MAX_TAPS:
        raise ValueError(f"{what}: got a {type(value).__name__}, expected a short list of numbers")
    return [as_number(tap, what) for tap in value]


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
    return None if value is None else as_positive(value, "clamp on activations")


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
    if len(sides) < 2 or sides != [4 << i for i in range(len(sides))] or sides[-1] > MAX_SIDE:
        got = ", ".join(f"{side}×{side}" for side in sides[:20])
        raise ValueError(
            f"{what}: got blocks of {got or 'no known name'}, expected 4×4, 8×8, … without a gap; are these the "
            "weights of an official network?"
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


def build(config: NetworkConfigs, state: Mapping[str, Tensor], sources: Sources, what: str) -> Network:
    """Makes a network of a state under other names, and refuses to leave anything over on either side.

    Names and shapes are compared, and what the file brings is weighed, before memory is taken for the network: a few
    long biases, or one tensor under a hundred names, would ask for terabytes.

    Args:
        config: The network's config, as inferred from the state.
        state: The tensors under the file's names.
        sources: Where each of the network's tensors comes from.
        what: The network's name, for messages.

    Raises:
        ValueError: A tensor is missing, superfluous, or of another shape, or the file is far too small for the network.
    """
    if config.plan.nominal[-1] > MAX_SIDE:
        raise ValueError(f"{what}: got blocks of up to {config.plan.nominal[-1]:.3g}, expected {MAX_SIDE} at most")
    storages = [tensor.untyped_storage() for tensor in state.values()]
    have = sum({one.data_ptr(): one.nbytes() // 4 for one in storages}.values())
    want = shapes_of(config)
    need = sum(map(math.prod, want.values()))
    if need > _MAX_GROWTH * have + (1 << 20):
        raise ValueError(
            f"{what}: got {have:,} numbers, expected {need:,} for a network of such layers; is the file complete?"
        )
    return filled(config, arrange(want, state, sources, what))


def arrange(
    want: Mapping[str, torch.Size], state: Mapping[str, Tensor], sources: Sources, what: str
) -> dict[str, Tensor]:
    """A state under our names and in our layouts.

    Args:
        want: Our names and shapes.
        state: As `build` takes it.
        sources: As `build` takes it.
        what: As `build` takes it.

    Raises:
        ValueError: A tensor is missing, superfluous, or of another shape.
    """
    assert sources.keys() == want.keys()
    tensors = {}
    for ours, (theirs, layout) in sources.items():
        tensor = take(state, theirs, what)
        try:
            tensors[ours] = layout(tensor)
        except (IndexError, RuntimeError):
            tensors[ours] = tensor  # a layout for another number of dimensions: reported below
        if tensors[ours].shape != want[ours]:
            raise ValueError(
                f"{what}: got shape {list(tensor.shape)} for {theirs!r}, expected {want[ours].numel()} numbers that "
                f"make {list(want[ours])} here, as the other tensors tell; is the file a mixture?"
            )
    for name in sorted(state.keys() - {theirs for theirs, _ in sources.values()}):
        raise ValueError(
            f"{what}: got a tensor {shown(name)} that this architecture does not have, expected the official layout; "
            "is it a network of another kind or a changed one?"
        )
    return tensors
