"""Weights of the official TensorFlow releases of StyleGAN (config A), StyleGAN2 (configs B to F) and StyleGAN2-ADA.

TensorFlow stores convolutions as [kh, kw, in, out] and dense weights as [in, out]. Its kernels correlate also when
they go up, ours convolve there, so the kernels of ``Conv0_up`` are turned by 180°; except in StyleGAN's fused
up-sampling (blocks of 128 and above), which is a convolution itself.
"""
# Shapes: O/I output/input channels or features, k kernel size, C channels, H W image size.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from styleforge.convert.modules import MAX_NAME
from styleforge.convert.state import (
    Layout,
    as_clamp,
    as_flag,
    as_group,
    as_positive,
    as_taps,
    as_tensors,
    block_sides,
    build,
    count_layers,
    has,
    infer_architecture,
    infer_channels,
    take,
)
from styleforge.convert.unpickle import Record
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from styleforge.networks.config import StyleBlock

FUSED_FROM = 128
"""Resolution of a block from which StyleGAN's release fuses up-sampling and convolution by itself."""
_MAX_COMPONENTS = 16

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
        label = "LabelConcat" if config.label_mode == "matrix" else "LabelEmbed"
        names["mapping.embed.weight"] = (f"G_mapping/{label}/weight", _dense)
        if config.label_mode == "embedding":
            names["mapping.embed.bias"] = (f"G_mapping/{label}/bias", _same)
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


def _generator(state: dict[str, Tensor], kwargs: Mapping[str, Any]) -> Generator:
    what = "TensorFlow generator"
    state = _without_lod(state)
    sides = block_sides(state, r"G_synthesis/(\d{1,9})x\d+/", what)
    stylegan, progressive = not has(state, "/mod_"), has(state, "/ToRGB_lod")
    scopes = [f"G_synthesis/{side}x{side}" for side in sides]
    first_conv = [f"{scopes[0]}/Conv"] + [f"{scope}/Conv1" for scope in scopes[1:]]
    channels = [take(state, f"{name}/bias", what, 1).shape[0] for name in first_conv]
    channel_base, channel_max = infer_channels(channels, what)
    embeds = has(state, "/LabelEmbed/")
    label = None
    if embeds or has(state, "/LabelConcat/"):
        label = take(state, f"G_mapping/Label{'Embed' if embeds else 'Concat'}/weight", what, 2)  # [C, Z]
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
        label_mode="embedding" if embeds else "matrix",
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=mapping_layers,
        mapping_features=None if features == w_dim else features,
        architecture=infer_architecture(state, [f"{scope}/ToRGB/" for scope in scopes[:-1]], "/Skip/"),
        style_block=_adain_block(kwargs, what) if stylegan else "demodulation",
        channel_base=channel_base,
        channel_max=channel_max,
        progressive=progressive,
        input="latent" if has(state, f"{scopes[0]}/Dense/") else "constant",
        use_noise=has(state, "/Noise/", "/noise_strength", "/noise0"),
        use_styles=not stylegan or has(state, "/StyleMod/"),
        mapping_lr_multiplier=as_positive(kwargs.get("mapping_lrmul", 0.01), "mapping_lrmul"),
        conv_clamp=as_clamp(kwargs.get("conv_clamp")),
        blur=_blurs(kwargs, stylegan, what),
    )
    fused_scale = kwargs.get("fused_scale", "auto")
    if isinstance(fused_scale, str) and fused_scale == "auto":
        fused_from = FUSED_FROM
    else:
        fused_from = 0 if as_flag(fused_scale, "fused_scale") else sides[-1] + 1
    G = build(config, state, _generator_names(config, sides, fused_from), what)
    assert isinstance(G, Generator)
    return G


def _adain_block(kwargs: Mapping[str, Any], what: str) -> StyleBlock:
    """Which normalization StyleGAN's arguments ask for."""
    pixel = as_flag(kwargs.get("use_pixel_norm", False), "use_pixel_norm")
    instance = as_flag(kwargs.get("use_instance_norm", True), "use_instance_norm")
    if pixel == instance:
        raise ValueError(
            f"{what}: got {'both pixel and' if pixel else 'neither pixel nor'} instance normalization, expected one "
            "of the two; such a network has no config here"
        )
    return "pixel" if pixel else "instance"


def _blurs(kwargs: Mapping[str, Any], stylegan: bool, what: str) -> bool:
    """Whether resampling is low-pass filtered."""
    name, usual = ("blur_filter", [1, 2, 1]) if stylegan else ("resample_kernel", [1, 3, 3, 1])
    given = kwargs.get(name, usual)
    taps = [1, 1] if given is None else as_taps(given, name)
    if taps not in (usual, [1, 1]):
        raise ValueError(f"{what}: got another low-pass filter, expected {usual} or none; it has no config here")
    return taps == usual


_ONLY = {
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "use_wscale": True,
    "normalize_latents": True,
    "use_spectral_norm": False,
    "use_pagan": False,
    "adaptive_dropout": 0,
}
"""Arguments of the build functions that change the result -> the one value that our networks have."""


def _require_known(kwargs: Mapping[str, Any], what: str) -> None:
    """Refuses arguments that ask for what our networks do not have."""
    for name, value in _ONLY.items():
        given = kwargs.get(name, value)
        if not isinstance(given, str | int | float | None) or given != value:
            raise ValueError(f"{what}: got {name} other than {value!r}, expected it; such a network has no config here")


def _discriminator_names(config: DiscriminatorConfig, sides: list[int], mapping_gain: float) -> Names:
    """Where each tensor of a discriminator comes from; its label mapping's are multiplied by ``mapping_gain``."""
    names: Names = {}
    if config.c_dim and config.label_mode == "embedding":
        names["b4.mapping.embed.weight"] = ("LabelEmbed/weight", _dense)
        names["b4.mapping.embed.bias"] = ("LabelEmbed/bias", _same)
        for i in range(config.mapping_layers):
            names[f"b4.mapping.fc{i}.weight"] = (f"Mapping{i}/weight", lambda x: x.t() * mapping_gain)
            names[f"b4.mapping.fc{i}.bias"] = (f"Mapping{i}/bias", lambda x: x * mapping_gain)

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


def _discriminator(state: dict[str, Tensor], c_dim: int, kwargs: Mapping[str, Any]) -> Discriminator:
    what = "TensorFlow discriminator"
    state = _without_lod(state)
    sides = block_sides(state, r"(\d{1,9})x\d+/", what)
    stylegan, progressive = has(state, "4x4/Dense1/"), has(state, "FromRGB_lod")
    scopes = [f"{side}x{side}" for side in sides]
    channels = [take(state, f"{scopes[0]}/Conv/bias", what, 1).shape[0]]
    channels += [take(state, f"{scope}/Conv0/bias", what, 1).shape[0] for scope in scopes[1:]]
    channel_base, channel_max = infer_channels(channels, what)
    rgb = "FromRGB_lod0" if progressive else f"{scopes[-1]}/FromRGB"
    num_logits = take(state, f"{scopes[0]}/Dense1/bias" if stylegan else "Output/bias", what, 1).shape[0]
    embeds = has(state, "LabelEmbed/")
    if embeds:
        c_dim = take(state, "LabelEmbed/weight", what, 2).shape[0]
    elif num_logits != max(c_dim, 1):  # one per class
        raise ValueError(
            f"{what}: got {num_logits} logits, expected {max(c_dim, 1)} beside a generator with labels of length "
            f"{c_dim}; are both complete, and of one training?"
        )
    head_features = take(state, f"{scopes[0]}/Dense0/bias", what, 1).shape[0]
    config = DiscriminatorConfig(
        resolution=sides[-1],
        img_channels=take(state, f"{rgb}/weight", what, 4).shape[2],
        c_dim=c_dim,
        label_mode="embedding" if embeds else "matrix",
        architecture=infer_architecture(state, [f"{scope}/FromRGB/" for scope in scopes[:-1]], "/Skip/"),
        convention="stylegan" if stylegan else "stylegan2",
        channel_base=channel_base,
        channel_max=channel_max,
        progressive=progressive,
        mbstd_channels=take(state, f"{scopes[0]}/Conv/weight", what, 4).shape[2] - channels[0],
        head_features=None if head_features == channels[0] else head_features,
        mapping_layers=count_layers(state, "Mapping") if embeds else 8,
        mapping_features=num_logits if embeds and num_logits != head_features else None,
        mbstd_group=as_group(kwargs.get("mbstd_group_size", 4)),
        conv_clamp=as_clamp(kwargs.get("conv_clamp")),
        blur=_blurs(kwargs, stylegan, what),
    )
    # Learning rates of 0.1 are written as ours of 0.01: weights are divided by them, and multiplied again.
    names = _discriminator_names(config, sides, as_positive(kwargs.get("mapping_lrmul", 0.1), "mapping_lrmul") / 0.01)
    D = build(config, state, names, what)
    assert isinstance(D, Discriminator)
    return D


def from_variables(
    g_variables: Mapping[str, Any],
    d_variables: Mapping[str, Any] | None = None,
    *,
    g_kwargs: Mapping[str, Any] | None = None,
    d_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Generator, Discriminator | None]:
    """Makes networks from variables of the official TensorFlow releases of StyleGAN, StyleGAN2 and StyleGAN2-ADA.

    Sizes and architectures are inferred from names and shapes; what these do not tell (normalization, filters, the
    clamp, whether StyleGAN's up-sampling is fused and so stored turned) from the arguments of the build functions.

    Args:
        g_variables: The generator's variables: official names (``G_synthesis/4x4/Conv/weight``) to arrays.
        d_variables: The discriminator's variables, or None.
        g_kwargs: The generator's static kwargs; None for the releases' defaults.
        d_kwargs: The discriminator's static kwargs; None for the releases' defaults, with groups of 4 in the
            minibatch standard deviation.

    Returns:
        (generator, discriminator or None), in float32 on the CPU.

    Raises:
        ValueError: A variable is missing, superfluous or of another shape, the two networks take different labels,
            or a network has no config here.
    """
    g_kwargs, d_kwargs = g_kwargs or {}, d_kwargs or {}
    _require_known(g_kwargs, "TensorFlow generator")
    _require_known(d_kwargs, "TensorFlow discriminator")
    G = _generator(as_tensors(g_variables), g_kwargs)
    return G, None if d_variables is None else _discriminator(as_tensors(d_variables), G.c_dim, d_kwargs)


def is_network(value: Any) -> bool:
    """Whether a record is one of the releases' networks."""
    return isinstance(value, Record) and isinstance(value.state, Mapping) and "variables" in value.state


def variables(network: Record) -> dict[str, Any]:
    """The variables of a network and of the networks inside it, under the names that the generator has for them.

    Raises:
        ValueError: They are no list of names and values, or there is no end to them.
    """
    found: dict[str, Any] = {}
    components = network.state.get("components")
    components = components if isinstance(components, Mapping) else {}
    if len(components) > _MAX_COMPONENTS or not all(isinstance(n, str) and len(n) <= MAX_NAME for n in components):
        raise ValueError("TensorFlow network: got other networks inside it, expected mapping and synthesis")
    for prefix, one in [("", network), *((f"G_{name}/", inner) for name, inner in components.items())]:
        pairs = one.state["variables"] if is_network(one) else None
        if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
            raise ValueError("TensorFlow network: got no list of variables, expected pairs of name and value")
        for name, value in pairs:
            found[name if name.startswith(prefix) else prefix + name] = value
    return found


def _is_pair(value: Any) -> bool:
    """Whether a value is a variable: its name and its numbers."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and len(value[0]) <= MAX_NAME


def static_kwargs(network: Record) -> dict[str, Any]:
    """The arguments that a network was built with, where its release's defaults differ from the others' included.

    Raises:
        ValueError: They are no dictionary.
    """
    given, builder = (network.state.get(key) for key in ("static_kwargs", "build_func_name"))
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"static_kwargs: got a {type(given).__name__}, expected a dictionary; is the file damaged?")
    kwargs = dict(given or {})
    if isinstance(builder, str) and builder == "D_main":  # StyleGAN2-ADA takes the whole minibatch as one group
        kwargs.setdefault("mbstd_group_size", None)
    return kwargs
