"""Configs of the networks: one dataclass owns each default, and the same JSON lies in every checkpoint."""

from __future__ import annotations

import dataclasses
import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from styleforge.networks.sizes import SizePlan, size_plan

Architecture = Literal["orig", "skip", "resnet"]
StyleBlock = Literal["demodulation", "instance", "pixel", "pixel_instance", "none"]
Convention = Literal["stylegan", "stylegan2"]
LabelMode = Literal["embedding", "matrix"]

ADAIN_BLOCKS = ("instance", "pixel", "pixel_instance")
"""Style blocks with the layer order of StyleGAN: convolution, noise, bias, activation, normalization, style."""


def check_choice(owner: str, field: str, value: object, literal: object) -> None:
    """Raises a ValueError unless ``value`` is one of a Literal's values."""
    choices = get_args(literal)
    if value not in choices:
        raise ValueError(
            f"{owner}.{field}: got {value!r}, expected one of {', '.join(map(str, choices))}; choose one of these"
        )


def check_range(owner: str, field: str, value: object, low: int, high: int | None = None) -> None:
    """Raises a ValueError unless ``value`` is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        limit = f"from {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{owner}.{field}: got {value!r}, expected a whole number {limit}; change the field")


@dataclass(kw_only=True, slots=True)
class NetworkConfig:
    """What generator and discriminator share."""

    resolution: int | tuple[int, int]
    """Image size in pixels: the side of a square, or (height, width)."""
    img_channels: int = 3
    """Image channels, 1 to 16."""
    c_dim: int = 0
    """Length of a label vector; 0 for an unconditional network."""
    label_mode: LabelMode = "embedding"
    """How labels enter. ``embedding``: a linear embedding of c, normalised, beside z; D projects its features on a
    mapped embedding. ``matrix``: StyleGAN's and StyleGAN2's TensorFlow releases: a matrix row beside z, both
    normalised together; D has one logit per class and takes the label's."""
    channel_base: int = 32768
    """Channels at resolution r are min(channel_base / r, channel_max). 32768 is config F, 16384 configs A to E."""
    channel_max: int = 512
    """Upper limit of the channels."""
    architecture: Architecture
    """How features and RGB are connected (Figure 7); generator and discriminator have defaults of their own."""
    progressive: bool = False
    """Whether every resolution has its own RGB layer, so that ``lod`` can grow the network (orig only)."""
    blur: bool = True
    """Whether resampling is low-pass filtered by [1, 3, 3, 1]; without, it is nearest neighbour up, mean down."""
    conv_clamp: float | None = None
    """Limit on the activations after each layer, a guard of half precision; None for no limit."""

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for field in dataclasses.fields(self):  # numpy's whole numbers become Python's, which JSON knows
            value = getattr(self, field.name)
            if isinstance(value, numbers.Integral) and not isinstance(value, bool):
                setattr(self, field.name, int(value))
        height, width = size_plan(self.resolution).sizes[-1]
        self.resolution = height if height == width else (height, width)
        check_range(owner, "img_channels", self.img_channels, 1, 16)
        check_range(owner, "c_dim", self.c_dim, 0)
        check_range(owner, "channel_base", self.channel_base, 1)
        check_range(owner, "channel_max", self.channel_max, 1)
        check_choice(owner, "label_mode", self.label_mode, LabelMode)
        check_choice(owner, "architecture", self.architecture, Architecture)
        if self.progressive and self.architecture != "orig":
            raise ValueError(
                f"{owner}.progressive: got architecture {self.architecture!r}, expected 'orig', the only one that "
                "grows progressively; set architecture='orig' or progressive=False"
            )
        last = self.plan.nominal[-1]
        if self.channel_base < last:
            raise ValueError(
                f"{owner}.channel_base: got {self.channel_base}, which leaves no channel at the last resolution "
                f"(channel_base / {last}), expected {last} or more (--cbase)"
            )

    @property
    def plan(self) -> SizePlan:
        """The base grid and the sizes of the blocks."""
        return size_plan(self.resolution)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.plan.sizes[-1]

    @property
    def channels(self) -> list[int]:
        """Channels of each block, from the base grid to the image: min(channel_base / r, channel_max)."""
        return [min(self.channel_base // r, self.channel_max) for r in self.plan.nominal]

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def to_json(self) -> str:
        """All fields as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a config from `to_dict`'s result.

        Raises:
            ValueError: A field that this version does not know, or a value that does not fit.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown or "resolution" not in values:
            got = f"unknown field {unknown[0]!r}" if unknown else "no field 'resolution'"
            raise ValueError(f"{cls.__name__}: got {got}, expected {', '.join(sorted(known))}; is the file newer?")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Makes a config from `to_json`'s result; see `from_dict`."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{cls.__name__}: got text that is not JSON ({error}), expected to_json's result"
            ) from error
        if not isinstance(values, dict):
            raise ValueError(f"{cls.__name__}: got a JSON {type(values).__name__}, expected an object of fields")
        return cls.from_dict(values)


@dataclass(kw_only=True, slots=True)
class GeneratorConfig(NetworkConfig):
    """A generator: mapping and synthesis network."""

    architecture: Architecture = "skip"
    """How RGB is made: ``orig`` at the end, ``skip`` summed over resolutions, ``resnet`` residual."""
    z_dim: int = 512
    """Length of the input latent z."""
    w_dim: int = 512
    """Length of the intermediate latent w."""
    mapping_layers: int = 8
    """Fully connected layers of the mapping network; 0 takes w = normalised z (ablation of Tan et al., Table 1)."""
    mapping_features: int | None = None
    """Width of the mapping network's hidden layers; None takes ``w_dim``."""
    mapping_lr_multiplier: float = 0.01
    """Learning rate of the mapping network relative to the rest."""
    style_block: StyleBlock = "demodulation"
    """``demodulation`` is StyleGAN2 (configs B to F), ``none`` the same with modulation alone; ``instance`` is
    StyleGAN's AdaIN (config A), ``pixel`` and ``pixel_instance`` (PIN) put another normalization in its place."""
    input: Literal["auto", "constant", "latent"] = "auto"
    """Where synthesis starts: a learned constant, or ``latent``: the traditional input, w through a dense layer.
    ``auto`` is ``constant``, but ``latent`` when ``use_styles`` is off, since else nothing would depend on w."""
    use_noise: bool = True
    """Whether noise is added after each convolution."""
    use_styles: bool = True
    """Whether styles modulate the features; without, only the normalization of the style block stays."""

    def __post_init__(self) -> None:
        super(GeneratorConfig, self).__post_init__()
        owner = "GeneratorConfig"
        check_range(owner, "z_dim", self.z_dim, 1)
        check_range(owner, "w_dim", self.w_dim, 1)
        check_range(owner, "mapping_layers", self.mapping_layers, 0)
        if self.mapping_features is not None:
            check_range(owner, "mapping_features", self.mapping_features, 1)
        check_choice(owner, "style_block", self.style_block, StyleBlock)
        check_choice(owner, "input", self.input, Literal["auto", "constant", "latent"])
        if self.mapping_layers == 0 and self.z_dim != self.w_dim:
            raise ValueError(
                f"{owner}.mapping_layers: got 0 with z_dim {self.z_dim} and w_dim {self.w_dim}, expected equal "
                "lengths, since w is z then; set one to the other or use layers"
            )
        if self.input == "constant" and not self.use_styles:
            raise ValueError(
                f"{owner}.input: got 'constant' with use_styles=False, which leaves nothing that depends on w; "
                "expected 'auto' or 'latent'"
            )

    @property
    def convention(self) -> Convention:
        """Whose layer arithmetic holds: StyleGAN's for AdaIN blocks, StyleGAN2's for the others."""
        return "stylegan" if self.style_block in ADAIN_BLOCKS else "stylegan2"

    @property
    def constant_input(self) -> bool:
        """Whether synthesis starts from a learned constant."""
        return self.input == "constant" or (self.input == "auto" and self.use_styles)

    @property
    def num_ws(self) -> int:
        """Number L of w vectors that synthesis takes: two per block (18 at 1024²)."""
        return 2 * len(self.plan.sizes)


@dataclass(kw_only=True, slots=True)
class DiscriminatorConfig(NetworkConfig):
    """A discriminator."""

    architecture: Architecture = "resnet"
    """How RGB is read: ``orig`` at the start, ``skip`` added at each resolution, ``resnet`` residual."""
    convention: Convention = "stylegan2"
    """Whose layer arithmetic holds; ``stylegan`` is config A's discriminator."""
    mbstd_group: int = 4
    """Samples per group of the minibatch standard deviation."""
    mbstd_channels: int = 1
    """Feature maps of the minibatch standard deviation; 0 for none."""
    head_features: int | None = None
    """Width of the fully connected layer at the end; None takes the channels at the base grid."""
    mapping_layers: int = 8
    """Fully connected layers on the label embedding, when there are labels and ``label_mode`` is ``embedding``."""
    mapping_features: int | None = None
    """Length of the mapped label embedding that features are projected on; None takes the head's width."""

    def __post_init__(self) -> None:
        super(DiscriminatorConfig, self).__post_init__()
        owner = "DiscriminatorConfig"
        check_choice(owner, "convention", self.convention, Convention)
        check_range(owner, "mbstd_group", self.mbstd_group, 1)
        check_range(owner, "mbstd_channels", self.mbstd_channels, 0)
        check_range(owner, "mapping_layers", self.mapping_layers, 0)
        for field in ("head_features", "mapping_features"):
            if getattr(self, field) is not None:
                check_range(owner, field, getattr(self, field), 1)
        if self.mbstd_channels and self.channels[0] % self.mbstd_channels:
            raise ValueError(
                f"{owner}.mbstd_channels: got {self.mbstd_channels} with {self.channels[0]} channels at the base grid, "
                "expected a divisor of them"
            )
