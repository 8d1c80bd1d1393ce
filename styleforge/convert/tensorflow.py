"""Weights of the official TensorFlow releases of StyleGAN (config A) and StyleGAN2 (configs B to F).

TensorFlow stores convolutions as [kh, kw, in, out] and dense weights as [in, out]. Its kernels correlate also when
they go up, ours convolve there, so the kernels of ``Conv0_up`` are turned by 180°; except in StyleGAN's fused
up-sampling (blocks of 128 and above), which is a convolution itself.
"""
# Shapes: O/I output/input channels or features, k kernel size, C channels, H W image size.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from styleforge.convert.state import (
    Layout,
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

FUSED_FROM = 128
"""Resolution of a block from which StyleGAN's release fuses up-sampling and convolution by itself."""

Names = dict[str, tuple[str, Layout]]
"""Our name -> (TensorFlow's name, what turns its layout into ours)."""


def _same(x: Tensor) -> Tensor:
    return x


def _conv(x: Tensor) -> Tensor:
    return x.permute(3, 2, 0, 1)  # [k, k, I, O] -> [O, I, k, k]


def _conv_up(x: Tensor) -> Tensor:
    return _conv(x).flip([2, 3])


def _dense(x: Tensor) -> Tensor:
    return x.t()  # [I, O] -> [O, I]


def _unbatch(x: Tensor) -> Tensor:
    return x[0]  # [1, C, H, W] -> [C, H, W]


def _noise_map(x: Tensor) -> Tensor:
    return x[0, 0]  # [1, 1, H, W] -> [H, W]


def _per_channel(x: Tensor) -> Tensor:
    return x[:, None, None]  # [C] -> [C, 1, 1]


def _plus_one(x: Tensor) -> Tensor:
    return x + 1  # the release adds the 1 of the affine's bias at run time


def _without_lod(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The variables but for the level of detail, which is an argument here."""
    return {name: tensor for name, tensor in state.items() if name.split("/")[-1] != "lod"}


def _generator_names(config: GeneratorConfig, sides: list[int], fused_from: int) -> Names:
    """Where each tensor of a generator comes from."""
    stylegan = config.convention == "stylegan"
    names: Names = {"mapping.w_avg": ("dlatent_avg", _same)}
    if config.c_dim:
        names["mapping.embed.weight"] = ("G_mapping/LabelConcat/weight", _dense)
    for i in range(config.mapping_layers):
        names[f"mapping.fc{i}.weight"] = (f"G_mapping/Dense{i}/weight", _dense)
        names[f"mapping.fc{i}.bias"] = (f"G_mapping/Dense{i}/bias", _same)

    num_noises = 0

    def add_layer(ours: str, theirs: str, up_from: int | None = None) -> None:
        """One style layer, with or without a convolution, and its noise map."""
        nonlocal num_noises
        if not theirs.endswith(("Const", "Dense")):
            turn = up_from is not None and not (stylegan and up_from >= fused_from)
            names[f"{ours}.weight"] = (f"{theirs}/weight", _conv_up if turn else _conv)
            ours += ".epilogue" if stylegan else ""
        names[f"{ours}.bias"] = (f"{theirs}/bias", _same)
        if config.use_noise:
            names[f"{ours}.noise.const"] = (f"G_synthesis/noise{num_noises}", _noise_map)
            names[f"{ours}.noise.strength"] = (
                (f"{theirs}/Noise/weight", _per_channel) if stylegan else (f"{theirs}/noise_strength", _same)
            )
            num_noises += 1
        if stylegan and config.use_styles:
            names[f"{ours}.norm.affine.weight"] = (f"{theirs}/StyleMod/weight", _dense)
            names[f"{ours}.norm.affine.bias"] = (f"{theirs}/StyleMod/bias", _same)
        elif not stylegan:
            add_affine(ours, theirs)

    def add_affine(ours: str, theirs: str) -> None:
        names[f"{ours}.affine.weight"] = (f"{theirs}/mod_weight", _dense)
        names[f"{ours}.affine.bias"] = (f"{theirs}/mod_bias", _plus_one)

    for i, side in enumerate(sides):
        block, scope = f"synthesis.b{side}", f"G_synthesis/{side}x{side}"
        if i == 0:
            start = "Const" if config.constant_input else "Dense"
            if config.constant_input:
                names[f"{block}.input.const"] = (f"{scope}/Const/const", _unbatch)
            else:
                names[f"{block}.input.dense.weight"] = (f"{scope}/Dense/weight", _dense)
            if stylegan:
                add_layer(f"{block}.conv0", f"{scope}/{start}")
            add_layer(f"{block}.conv1", f"{scope}/Conv")
        else:
            add_layer(f"{block}.conv0", f"{scope}/Conv0_up", up_from=side)
            add_layer(f"{block}.conv1", f"{scope}/Conv1")
            if config.architecture == "resnet":
                names[f"{block}.skip.weight"] = (f"{scope}/Skip/weight", _conv)
        if config.progressive or config.architecture == "skip" or side == sides[-1]:
            rgb = f"G_synthesis/ToRGB_lod{len(sides) - 1 - i}" if config.progressive else f"{scope}/ToRGB"
            names[f"{block}.torgb.weight"] = (f"{rgb}/weight", _conv)
            names[f"{block}.torgb.bias"] = (f"{rgb}/bias", _same)
            if not stylegan:
                add_affine(f"{block}.torgb", rgb)
    return names


def _generator(state: dict[str, Tensor], fused_scale: bool | Literal["auto"]) -> Generator:
    what = "TensorFlow generator"
    state = _without_lod(state)
    sides = block_sides(state, r"G_synthesis/(\d+)x\d+/", what)
    stylegan, progressive = not has(state, "/mod_"), has(state, "/ToRGB_lod")
    scopes = [f"G_synthesis/{side}x{side}" for side in sides]
    first_conv = [f"{scopes[0]}/Conv"] + [f"{scope}/Conv1" for scope in scopes[1:]]
    channels = [take(state, f"{name}/bias", what, 1).shape[0] for name in first_conv]
    channel_base, channel_max = infer_channels(channels, what)
    label = take(state, "G_mapping/LabelConcat/weight", what, 2) if has(state, "/LabelConcat/") else None  # [C, Z]
    mapping_layers = count_layers(state, "G_mapping/Dense")
    w_dim = take(state, "dlatent_avg", what, 1).shape[0]
    z_dim, features = w_dim, w_dim
    if mapping_layers:
        z_dim, features = take(state, "G_mapping/Dense0/weight", what, 2).shape
        z_dim -= 0 if label is None else label.shape[1]
    rgb = "G_synthesis/ToRGB_lod0" if progressive else f"{scopes[-1]}/ToRGB"
    config = GeneratorConfig(
        resolution=sides[-1],
        img_channels=take(state, f"{rgb}/bias", what, 1).shape[0],
        c_dim=0 if label is None else label.shape[0],
        label_mode="matrix",
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=mapping_layers,
        mapping_features=None if features == w_dim else features,
        architecture=infer_architecture(state, [f"{scope}/ToRGB/" for scope in scopes[:-1]], "/Skip/"),
        style_block="instance" if stylegan else "demodulation",
        channel_base=channel_base,
        channel_max=channel_max,
        progressive=progressive,
        input="latent" if has(state, f"{scopes[0]}/Dense/") else "constant",
        use_noise=has(state, "/Noise/", "/noise_strength", "/noise0"),
        use_styles=not stylegan or has(state, "/StyleMod/"),
    )
    fused_from = FUSED_FROM if fused_scale == "auto" else 0 if fused_scale else sides[-1] + 1
    return load_exactly(Generator(config), state, _generator_names(config, sides, fused_from), what)


def _discriminator_names(config: DiscriminatorConfig, sides: list[int]) -> Names:
    """Where each tensor of a discriminator comes from."""
    names: Names = {}

    def add(ours: str, theirs: str, layout: Layout, bias: bool = True) -> None:
        names[f"{ours}.weight"] = (f"{theirs}/weight", layout)
        if bias:
            names[f"{ours}.bias"] = (f"{theirs}/bias", _same)

    for i, side in enumerate(sides):
        block, scope = f"b{side}", f"{side}x{side}"
        if config.progressive:
            add(f"{block}.fromrgb", f"FromRGB_lod{len(sides) - 1 - i}", _conv)
        elif config.architecture == "skip" or side == sides[-1]:
            add(f"{block}.fromrgb", f"{scope}/FromRGB", _conv)
        if i == 0:
            add(f"{block}.conv", f"{scope}/Conv", _conv)
            add(f"{block}.fc", f"{scope}/Dense0", _dense)
            add(f"{block}.out", f"{scope}/Dense1" if config.convention == "stylegan" else "Output", _dense)
        else:
            add(f"{block}.conv0", f"{scope}/Conv0", _conv)
            add(f"{block}.conv1", f"{scope}/Conv1_down", _conv)
            if config.architecture == "resnet":
                add(f"{block}.skip", f"{scope}/Skip", _conv, bias=False)
    return names


def _discriminator(state: dict[str, Tensor], c_dim: int) -> Discriminator:
    what = "TensorFlow discriminator"
    state = _without_lod(state)
    sides = block_sides(state, r"(\d+)x\d+/", what)
    stylegan, progressive = has(state, "4x4/Dense1/"), has(state, "FromRGB_lod")
    scopes = [f"{side}x{side}" for side in sides]
    channels = [take(state, f"{scopes[0]}/Conv/bias", what, 1).shape[0]]
    channels += [take(state, f"{scope}/Conv0/bias", what, 1).shape[0] for scope in scopes[1:]]
    channel_base, channel_max = infer_channels(channels, what)
    rgb = "FromRGB_lod0" if progressive else f"{scopes[-1]}/FromRGB"
    num_logits = take(state, f"{scopes[0]}/Dense1/bias" if stylegan else "Output/bias", what, 1).shape[0]
    if num_logits != max(c_dim, 1):  # one per class
        raise ValueError(
            f"{what}: got {num_logits} logits, expected {max(c_dim, 1)} beside a generator with labels of length "
            f"{c_dim}; are both complete, and of one training?"
        )
    head_features = take(state, f"{scopes[0]}/Dense0/bias", what, 1).shape[0]
    config = DiscriminatorConfig(
        resolution=sides[-1],
        img_channels=take(state, f"{rgb}/weight", what, 4).shape[2],
        c_dim=c_dim,
        label_mode="matrix",
        architecture=infer_architecture(state, [f"{scope}/FromRGB/" for scope in scopes[:-1]], "/Skip/"),
        convention="stylegan" if stylegan else "stylegan2",
        channel_base=channel_base,
        channel_max=channel_max,
        progressive=progressive,
        mbstd_channels=take(state, f"{scopes[0]}/Conv/weight", what, 4).shape[2] - channels[0],
        head_features=None if head_features == channels[0] else head_features,
    )
    return load_exactly(Discriminator(config), state, _discriminator_names(config, sides), what)


def from_variables(
    g_variables: Mapping[str, Any],
    d_variables: Mapping[str, Any] | None = None,
    *,
    fused_scale: bool | Literal["auto"] = "auto",
) -> tuple[Generator, Discriminator | None]:
    """Makes networks from variables of the official TensorFlow releases of StyleGAN and StyleGAN2.

    Every config value is inferred from names and shapes. What these do not hold takes the releases' defaults:
    instance normalization in StyleGAN, the filters, groups of 4 in the minibatch standard deviation.

    Args:
        g_variables: The generator's variables: official names (``G_synthesis/4x4/Conv/weight``) to arrays.
        d_variables: The discriminator's variables, or None.
        fused_scale: StyleGAN's argument of that name, which decides how its up-sampling kernels are stored; the
            release's default ``auto`` fuses blocks of 128 and above.

    Returns:
        (generator, discriminator or None), in float32 on the CPU.

    Raises:
        ValueError: A variable is missing, superfluous or of another shape, the two networks take different labels,
            or a network has no config here.
    """
    G = _generator(as_tensors(g_variables), fused_scale)
    return G, None if d_variables is None else _discriminator(as_tensors(d_variables), G.c_dim)
