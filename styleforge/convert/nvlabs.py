"""Weights of the official PyTorch release (StyleGAN2-ADA, and StyleGAN2 networks of StyleGAN3's release)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from styleforge.convert.state import as_tensors, count_layers, infer_channels, load_exactly, take
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from styleforge.networks.config import Architecture
from styleforge.ops import make_filter

# Official name -> our name, where they differ. The order matters: the first that fits is taken.
_RENAMES = (
    (re.compile(r"^synthesis\.(b\d+)\.const$"), r"synthesis.\1.input.const"),
    (re.compile(r"\.noise_(const|strength)$"), r".noise.\1"),
)


def _rename(name: str, base_block: str | None = None) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    if base_block is not None and name.startswith("mapping."):
        return f"{base_block}.{name}"
    return name


def _block_sides(state: Mapping[str, Tensor], prefix: str, what: str) -> list[int]:
    """The numbers of the blocks b4, b8, …, in order."""
    pattern = re.compile(rf"^{re.escape(prefix)}b(\d+)\.")
    sides = sorted({int(match[1]) for name in state if (match := pattern.match(name))})
    if not sides or any(b != 2 * a for a, b in zip(sides, sides[1:], strict=False)) or len(sides) < 2:
        raise ValueError(
            f"{what}: got blocks {', '.join(f'{prefix}b{side}' for side in sides) or 'of no known name'}, expected "
            f"{prefix}b4, {prefix}b8, … without a gap; is it a state dict of the official PyTorch release?"
        )
    return sides


def _split_filters(state: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], bool]:
    """Takes the FIR filters out of a state: (the rest, whether they blur)."""
    rest = {name: tensor for name, tensor in state.items() if not name.endswith("resample_filter")}
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


def _architecture(is_skip: bool, is_resnet: bool) -> Architecture:
    return "skip" if is_skip else "resnet" if is_resnet else "orig"


def _generator(state: dict[str, Tensor]) -> Generator:
    what = "official generator"
    sides = _block_sides(state, "synthesis.", what)
    first, last = (f"synthesis.b{side}" for side in (sides[0], sides[-1]))
    state, blur = _split_filters(state, what)
    const = take(state, f"{first}.const", what)  # [C, h, w]
    n = len(sides) - 1
    channels = [take(state, f"synthesis.b{side}.conv1.bias", what).shape[0] for side in sides]
    channel_base, channel_max = infer_channels(channels, what)
    w_dim = take(state, f"{first}.conv1.affine.weight", what).shape[1]
    mapping_layers = count_layers(state, "mapping.fc{}.weight")
    embed = state.get("mapping.embed.weight")  # [embedding, C]
    z_dim, features = w_dim, None
    if mapping_layers:
        z_dim = state["mapping.fc0.weight"].shape[1] - (0 if embed is None else embed.shape[0])
        features = state["mapping.fc0.weight"].shape[0] if mapping_layers > 1 else None
    config = GeneratorConfig(
        resolution=(const.shape[1] << n, const.shape[2] << n),
        img_channels=take(state, f"{last}.torgb.weight", what).shape[0],
        c_dim=0 if embed is None else embed.shape[1],
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=mapping_layers,
        mapping_features=None if features == w_dim else features,
        architecture=_architecture(f"{first}.torgb.weight" in state, f"synthesis.b{sides[1]}.skip.weight" in state),
        channel_base=channel_base,
        channel_max=channel_max,
        blur=blur,
        use_noise=f"{first}.conv1.noise_strength" in state,
    )
    names = {_rename(name): name for name in state}
    return load_exactly(Generator(config), {ours: state[name] for ours, name in names.items()}, names, what)


def _discriminator(state: dict[str, Tensor], mbstd_group: int) -> Discriminator:
    what = "official discriminator"
    sides = _block_sides(state, "", what)
    first, last = f"b{sides[0]}", f"b{sides[-1]}"
    state, blur = _split_filters(state, what)
    channels = [take(state, f"{first}.conv.bias", what).shape[0]]
    channels += [take(state, f"b{side}.conv0.bias", what).shape[0] for side in sides[1:]]
    channel_base, channel_max = infer_channels(channels, what)
    embed = state.get("mapping.embed.weight")  # [embedding, C]
    # The dense layer's input is channels × base grid; official networks are square.
    area = take(state, f"{first}.fc.weight", what).shape[1] // channels[0]
    config = DiscriminatorConfig(
        resolution=round(area**0.5) << (len(sides) - 1),
        img_channels=take(state, f"{last}.fromrgb.weight", what).shape[1],
        c_dim=0 if embed is None else embed.shape[1],
        architecture=_architecture(f"{first}.fromrgb.weight" in state, f"{last}.skip.weight" in state),
        channel_base=channel_base,
        channel_max=channel_max,
        blur=blur,
        mbstd_group=mbstd_group,
        mbstd_channels=take(state, f"{first}.conv.weight", what).shape[1] - channels[0],
        mapping_layers=8 if embed is None else count_layers(state, "mapping.fc{}.weight"),
        mapping_features=None if embed is None or embed.shape[0] == channels[0] else embed.shape[0],
    )
    names = {_rename(name, first): name for name in state}
    return load_exactly(Discriminator(config), {ours: state[name] for ours, name in names.items()}, names, what)


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
