"""Weights of the official PyTorch release (StyleGAN2-ADA, and StyleGAN2 networks of StyleGAN3's release), both ways.

A state dict holds tensors alone. The few numbers beside them that change the result (the clamp, the mapping network's
learning rate, the groups of the minibatch standard deviation) are taken from the modules or the constructor's arguments
that come along, and else from the caller.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from styleforge.checkpoint import NetworkConfigs, shapes_of
from styleforge.convert.modules import Attributes, flatten
from styleforge.convert.state import (
    Refusals,
    Sources,
    as_clamp,
    as_group,
    as_positive,
    as_tensors,
    block_sides,
    build,
    count_layers,
    has,
    infer_architecture,
    infer_channels,
    shown,
    take,
)
from styleforge.convert.unpickle import Record
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from styleforge.ops import make_filter

# Our name -> official name, where they differ.
_RENAMES = (
    (re.compile(r"\.input\.const$"), ".const"),
    (re.compile(r"\.noise\.(const|strength)$"), r".noise_\1"),
    (re.compile(r"^b\d+\.mapping\."), "mapping."),
)


def _official_name(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _sources(config: NetworkConfigs) -> Sources:
    return {name: (_official_name(name), lambda x: x) for name in shapes_of(config)}


def _filter_names(state: Mapping[str, Tensor], filtering: Sequence[str], blocks: Sequence[str]) -> list[str]:
    """Where a state has FIR filters: one in each block of ``filtering``, one in each convolution of ``blocks``."""
    layers = [f"{block}.{layer}" for block in blocks for layer in ("conv", "conv0", "conv1", "skip", "fromrgb")]
    owners = [*filtering, *(layer for layer in layers if f"{layer}.weight" in state)]
    return [f"{owner}.resample_filter" for owner in owners]


def _split_filters(
    state: Mapping[str, Tensor], filtering: Sequence[str], blocks: Sequence[str], what: str
) -> tuple[dict[str, Tensor], bool]:
    """Takes the FIR filters out of a state; see `_filter_names`.

    States without any filter are taken too, as some tools drop buffers: (the rest, whether the filters blur).
    """
    rest = {name: tensor for name, tensor in state.items() if not name.endswith("resample_filter")}
    if len(rest) < len(state):
        for name in _filter_names(rest, filtering, blocks):
            take(state, name, what)
    blur = None
    for name in state.keys() - rest.keys():
        matches = [f for f in ((1, 3, 3, 1), (1, 1)) if _is_filter(state[name], f)]
        if not matches or blur not in (None, matches[0] == (1, 3, 3, 1)):
            raise ValueError(
                f"{what}: got another low-pass filter in {shown(name)} than [1, 3, 3, 1] or [1, 1], expected one of "
                "these in all layers; such a network has no config here"
            )
        blur = matches[0] == (1, 3, 3, 1)
    return rest, blur is not False


def _is_filter(f: Tensor, taps: tuple[int, ...]) -> bool:
    want = make_filter(taps)
    f = torch.outer(f, f) if f.shape == want.shape[:1] else f
    return f.shape == want.shape and bool(torch.allclose(f, want, atol=1e-6))


def generator(
    state: Mapping[str, Any], *, conv_clamp: float | None = None, mapping_lr_multiplier: float = 0.01
) -> Generator:
    """Makes a generator from a state dict; see `from_state`."""
    what, state = "official generator", as_tensors(state)
    if has(state, "synthesis.input."):
        raise ValueError(f"{what}: got a network of StyleGAN3, expected one of StyleGAN2; it has no config here")
    sides = block_sides(state, r"synthesis\.b(\d{1,9})\.", what)
    blocks = [f"synthesis.b{side}" for side in sides]
    architecture = infer_architecture(state, [f"{block}.torgb." for block in blocks[:-1]], ".skip.")
    state, blur = _split_filters(state, blocks, blocks, what)
    channels = [take(state, f"{block}.conv1.bias", what, 1).shape[0] for block in blocks]
    channel_base, channel_max = infer_channels(channels, what)
    w_dim = take(state, f"{blocks[0]}.conv1.affine.weight", what, 2).shape[1]
    embed = take(state, "mapping.embed.weight", what, 2) if has(state, "mapping.embed.") else None  # [embedding, C]
    mapping_layers = count_layers(state, "mapping.fc")
    z_dim, features = w_dim, w_dim
    if mapping_layers:
        features, z_dim = take(state, "mapping.fc0.weight", what, 2).shape
        z_dim -= 0 if embed is None else embed.shape[0]
    config = GeneratorConfig(
        resolution=sides[-1],
        img_channels=take(state, f"{blocks[-1]}.torgb.weight", what, 4).shape[0],
        c_dim=0 if embed is None else embed.shape[1],
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=mapping_layers,
        mapping_features=None if features == w_dim else features,
        architecture=architecture,
        channel_base=channel_base,
        channel_max=channel_max,
        blur=blur,
        use_noise=has(state, ".noise_"),
        conv_clamp=conv_clamp,
        mapping_lr_multiplier=mapping_lr_multiplier,
    )
    G = build(config, state, _sources(config), what)
    assert isinstance(G, Generator)
    return G


def discriminator(state: Mapping[str, Any], *, mbstd_group: int = 4, conv_clamp: float | None = None) -> Discriminator:
    """Makes a discriminator from a state dict; see `from_state`."""
    what, state = "official discriminator", as_tensors(state)
    sides = block_sides(state, r"b(\d{1,9})\.", what)
    blocks = [f"b{side}" for side in sides]
    architecture = infer_architecture(state, [f"{block}.fromrgb." for block in blocks[:-1]], ".skip.")
    state, blur = _split_filters(state, blocks[1:], blocks, what)
    channels = [take(state, f"{blocks[0]}.conv.bias", what, 1).shape[0]]
    channels += [take(state, f"{block}.conv0.bias", what, 1).shape[0] for block in blocks[1:]]
    channel_base, channel_max = infer_channels(channels, what)
    embed = take(state, "mapping.embed.weight", what, 2) if has(state, "mapping.") else None  # [embedding, C]
    config = DiscriminatorConfig(
        resolution=sides[-1],
        img_channels=take(state, f"{blocks[-1]}.fromrgb.weight", what, 4).shape[1],
        c_dim=0 if embed is None else embed.shape[1],
        architecture=architecture,
        channel_base=channel_base,
        channel_max=channel_max,
        blur=blur,
        mbstd_group=mbstd_group,
        mbstd_channels=take(state, f"{blocks[0]}.conv.weight", what, 4).shape[1] - channels[0],
        mapping_layers=8 if embed is None else count_layers(state, "mapping.fc"),
        mapping_features=None if embed is None or embed.shape[0] == channels[0] else embed.shape[0],
        conv_clamp=conv_clamp,
    )
    D = build(config, state, _sources(config), what)
    assert isinstance(D, Discriminator)
    return D


def from_state(
    g_state: Mapping[str, Any],
    d_state: Mapping[str, Any] | None = None,
    *,
    mbstd_group: int = 4,
    conv_clamp: float | None = None,
    mapping_lr_multiplier: float = 0.01,
) -> tuple[Generator, Discriminator | None]:
    """Makes networks from state dicts of the official PyTorch release.

    Every other config value is inferred from names and shapes.

    Args:
        g_state: The generator's state dict: official names to tensors or arrays.
        d_state: The discriminator's state dict, or None.
        mbstd_group: Group size of the minibatch standard deviation, which a state does not hold.
        conv_clamp: Limit on the activations, which a state does not hold.
        mapping_lr_multiplier: The mapping network's relative learning rate, which a state does not hold.

    Returns:
        (generator, discriminator or None), in float32 on the CPU.

    Raises:
        ValueError: A tensor is missing, superfluous or of another shape, or the network has no config here.
    """
    G = generator(g_state, conv_clamp=conv_clamp, mapping_lr_multiplier=mapping_lr_multiplier)
    D = None if d_state is None else discriminator(d_state, mbstd_group=mbstd_group, conv_clamp=conv_clamp)
    return G, D


def from_module(module: Record) -> Generator | Discriminator:
    """Makes a network from a module out of a pickle, with the numbers that the module computes with.

    Raises:
        ValueError: As `from_state`; or the module computes in a way that no config here describes.
    """
    state, attributes = flatten(module, "official network")
    arguments = attributes[""].get("_init_kwargs")
    layers = {path: values for path, values in attributes.items() if re.fullmatch(_CLAMPED, path)}
    what = "official generator" if has(state, "synthesis.") else "official discriminator"
    for values in attributes.values():
        if values.get("activation", "lrelu") not in ("lrelu", "linear"):
            raise ValueError(
                f"{what}: got another activation than leaky ReLU; such a network has no config here, expected 'lrelu'"
            )
    given = settings(arguments if isinstance(arguments, Mapping) else {})
    clamp = as_clamp(_agreed(layers, "conv_clamp", given["conv_clamp"], what))
    dense = {path: values for path, values in attributes.items() if re.fullmatch(r"mapping\.fc\d+", path)}
    lr_multiplier = as_positive(_agreed(dense, "bias_gain", given["mapping_lr_multiplier"], what), "bias_gain")
    if what == "official generator":
        return generator(state, conv_clamp=clamp, mapping_lr_multiplier=lr_multiplier)
    if dense and lr_multiplier != 0.01:
        raise ValueError(
            f"{what}: got labels mapped with a learning rate of {lr_multiplier:g}, expected 0.01; such a "
            "network has no config here"
        )
    group = as_group(attributes.get("b4.mbstd", {}).get("group_size", given["mbstd_group"]))
    return discriminator(state, conv_clamp=clamp, mbstd_group=group)


_CLAMPED = r"(synthesis\.)?b\d+\.(conv|conv0|conv1|torgb)"
"""Layers whose clamp is the network's: all but the skips, and the fRGB that the release leaves unclamped."""


def _agreed(modules: Attributes, key: str, default: Any, what: str) -> Any:
    """The one value that all modules have under a key."""
    given = [values[key] for values in modules.values() if key in values]
    found = {None if value is None else as_positive(value, key) for value in given}
    if len(found) > 1:
        raise ValueError(f"{what}: got layers that differ in {key!r}, expected one value; it has no config here")
    return found.pop() if found else default


def settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a state dict does not hold, out of the arguments of an official constructor.

    Args:
        arguments: Keyword arguments; StyleGAN2-ADA has those of the synthesis network in one of their own.

    Returns:
        ``conv_clamp``, ``mapping_lr_multiplier`` and ``mbstd_group``, with the release's defaults.
    """

    def inner(key: str) -> Mapping[str, Any]:
        value = arguments.get(key)
        return value if isinstance(value, Mapping) else {}

    clamp = inner("synthesis_kwargs").get("conv_clamp", arguments.get("conv_clamp"))
    return {
        "conv_clamp": as_clamp(clamp),
        "mapping_lr_multiplier": as_positive(inner("mapping_kwargs").get("lr_multiplier", 0.01), "lr_multiplier"),
        "mbstd_group": as_group(inner("epilogue_kwargs").get("mbstd_group_size", 4)),
    }


def to_state(network: Generator | Discriminator) -> dict[str, Tensor]:
    """The state dict that the official release has for a network of ours, FIR filters included.

    Args:
        network: A square generator or discriminator of StyleGAN2, not progressive.

    Returns:
        Official names to tensors, which share memory with the network's.

    Raises:
        ValueError: The official classes have no such network.
    """
    require_official(network)
    config = network.config
    state = {official: network.state_dict()[ours] for ours, (official, _) in _sources(config).items()}
    prefix = "synthesis." if isinstance(network, Generator) else ""
    blocks = [f"{prefix}b{side}" for side in config.plan.nominal]
    filters = _filter_names(state, blocks if isinstance(network, Generator) else blocks[1:], blocks)
    return state | {name: make_filter([1, 3, 3, 1] if config.blur else [1, 1]) for name in filters}


def require_official(network: Generator | Discriminator) -> None:
    """Refuses networks that the official PyTorch classes cannot be.

    Raises:
        ValueError: Names what they do not have.
    """
    config = network.config
    refusals = Refusals("the official PyTorch classes")
    refusals.require_stylegan2(config)
    refusals.unless(config.label_mode == "embedding" or not config.c_dim, "labels as a matrix")
    if isinstance(config, DiscriminatorConfig):
        refusals.unless(config.head_features in (None, config.channels[0]), "a last layer of another width")
    else:
        refusals.unless(config.mapping_layers > 0 or not config.c_dim, "labels without a mapping network")


def constructor(network: Generator | Discriminator) -> dict[str, Any]:
    """The arguments with which the classes of StyleGAN3's ``training/networks_stylegan2.py`` make this network.

    StyleGAN2-ADA's generator takes those of the synthesis network (from ``channel_base`` on) as ``synthesis_kwargs``.
    """
    config = network.config
    arguments: dict[str, Any] = {
        "c_dim": config.c_dim,
        "img_resolution": config.resolution,
        "img_channels": config.img_channels,
    }
    body = {
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
        "architecture": config.architecture,
        "conv_clamp": config.conv_clamp,
        "num_fp16_res": 0,
    }
    taps = [1, 3, 3, 1] if config.blur else [1, 1]
    if isinstance(config, GeneratorConfig):
        mapping = {
            "num_layers": config.mapping_layers,
            "layer_features": config.mapping_features,
            "lr_multiplier": config.mapping_lr_multiplier,
        }
        arguments |= {"z_dim": config.z_dim, "w_dim": config.w_dim, "mapping_kwargs": mapping, **body}
        return arguments | {"use_noise": config.use_noise, "resample_filter": taps}
    mbstd = {"mbstd_group_size": config.mbstd_group, "mbstd_num_channels": config.mbstd_channels}
    arguments |= {**body, "cmap_dim": config.mapping_features, "block_kwargs": {"resample_filter": taps}}
    return arguments | {"mapping_kwargs": {"num_layers": config.mapping_layers}, "epilogue_kwargs": mbstd}
