"""Weights of the official PyTorch release (StyleGAN2-ADA, and StyleGAN2 networks of StyleGAN3's release)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from styleforge.convert.state import (
    Sources,
    as_tensors,
    block_sides,
    count_layers,
    has,
    infer_architecture,
    infer_channels,
    load_exactly,
    take,
)
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


def _sources(network: nn.Module) -> Sources:
    return {name: (_official_name(name), lambda x: x) for name in network.state_dict()}


def _split_filters(
    state: Mapping[str, Tensor], filtering: Sequence[str], blocks: Sequence[str], what: str
) -> tuple[dict[str, Tensor], bool]:
    """Takes the FIR filters out of a state: one in each block of ``filtering``, one in each convolution of ``blocks``.

    States without any filter are taken too, as some tools drop buffers: (the rest, whether the filters blur).
    """
    rest = {name: tensor for name, tensor in state.items() if not name.endswith("resample_filter")}
    if len(rest) < len(state):
        layers = [f"{block}.{layer}" for block in blocks for layer in ("conv", "conv0", "conv1", "skip", "fromrgb")]
        for owner in [*filtering, *(layer for layer in layers if f"{layer}.weight" in state)]:
            take(state, f"{owner}.resample_filter", what)
    blur = None
    for name in state.keys() - rest.keys():
        matches = [f for f in ((1, 3, 3, 1), (1, 1)) if _is_filter(state[name], f)]
        if not matches or blur not in (None, matches[0] == (1, 3, 3, 1)):
            raise ValueError(
                f"{what}: got another low-pass filter in {name!r} than [1, 3, 3, 1] or [1, 1], expected one of these "
                "in all layers; such a network has no config here"
            )
        blur = matches[0] == (1, 3, 3, 1)
    return rest, blur is not False


def _is_filter(f: Tensor, taps: tuple[int, ...]) -> bool:
    want = make_filter(taps)
    f = torch.outer(f, f) if f.ndim == 1 else f
    return f.shape == want.shape and bool(torch.allclose(f, want, atol=1e-6))


def _generator(state: dict[str, Tensor]) -> Generator:
    what = "official generator"
    sides = block_sides(state, r"synthesis\.b(\d+)\.", what)
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
    )
    G = Generator(config)
    return load_exactly(G, state, _sources(G), what)


def _discriminator(state: dict[str, Tensor], mbstd_group: int) -> Discriminator:
    what = "official discriminator"
    sides = block_sides(state, r"b(\d+)\.", what)
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
    )
    D = Discriminator(config)
    return load_exactly(D, state, _sources(D), what)


def from_state(
    g_state: Mapping[str, Any], d_state: Mapping[str, Any] | None = None, *, mbstd_group: int = 4
) -> tuple[Generator, Discriminator | None]:
    """Makes networks from state dicts of the official PyTorch release.

    Every config value is inferred from names and shapes. What these do not hold takes the release's defaults:
    the mapping network's learning rate, the clamp on activations (none), and ``mbstd_group``.

    Args:
        g_state: The generator's state dict: official names to tensors or arrays.
        d_state: The discriminator's state dict, or None.
        mbstd_group: Group size of the minibatch standard deviation, which a state does not hold.

    Returns:
        (generator, discriminator or None), in float32 on the CPU.

    Raises:
        ValueError: A tensor is missing, superfluous or of another shape, or the network has no config here.
    """
    G = _generator(as_tensors(g_state))
    return G, None if d_state is None else _discriminator(as_tensors(d_state), mbstd_group)
