"""Weights of rosinality/stylegan2-pytorch, on which many encoders and editors build, both ways.

Its generator has output skips and its discriminator is residual (configs E and F). The FIR filters lie in the state as
``kernel``: times 4 where they go up.
"""
# Shapes: O/I output/input channels, k kernel size, C channels, H W image size.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from styleforge.checkpoint import shapes_of
from styleforge.convert.state import (
    Layout,
    Refusals,
    as_tensors,
    build,
    count_layers,
    has,
    infer_channels,
    take,
)
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from styleforge.ops import make_filter

Names = dict[str, tuple[str, Layout, Layout]]
"""Our name -> (the project's name, its layout to ours, ours to its)."""

_TAPS = [1, 3, 3, 1]
_KERNEL = ".kernel"
_W_AVG = "latent_avg"
NOISES = "noises."
"""What the names of noise maps begin with; old states of the project have none."""


def _same(x: Tensor) -> Tensor:
    return x


def _first(x: Tensor) -> Tensor:
    return x[0]  # [1, …] -> […]


def _with_first(x: Tensor) -> Tensor:
    return x[None]


def _bias(x: Tensor) -> Tensor:
    return x[0, :, 0, 0]  # [1, C, 1, 1] -> [C]


def _image_bias(x: Tensor) -> Tensor:
    return x[None, :, None, None]


def _map(x: Tensor) -> Tensor:
    return x[0, 0]  # [1, 1, H, W] -> [H, W]


def _image_map(x: Tensor) -> Tensor:
    return x[None, None]


def _generator_names(config: GeneratorConfig) -> Names:
    """Where each tensor of a generator lies, but for ``mapping.w_avg``, which has no place in the module."""
    names: Names = {"synthesis.b4.input.const": ("input.input", _first, _with_first)}
    for i in range(config.mapping_layers):
        for kind in ("weight", "bias"):
            names[f"mapping.fc{i}.{kind}"] = (f"style.{i + 1}.{kind}", _same, _same)

    def add_affine(ours: str, theirs: str) -> None:
        for kind in ("weight", "bias"):
            names[f"{ours}.affine.{kind}"] = (f"{theirs}.conv.modulation.{kind}", _same, _same)
        names[f"{ours}.weight"] = (f"{theirs}.conv.weight", _first, _with_first)

    num_noises = 0
    for i, side in enumerate(config.plan.nominal):
        block = f"synthesis.b{side}"
        layers = {"conv1": "conv1"} if i == 0 else {"conv0": f"convs.{2 * i - 2}", "conv1": f"convs.{2 * i - 1}"}
        for ours, theirs in layers.items():
            add_affine(f"{block}.{ours}", theirs)
            names[f"{block}.{ours}.bias"] = (f"{theirs}.activate.bias", _same, _same)
            names[f"{block}.{ours}.noise.strength"] = (f"{theirs}.noise.weight", _first, _with_first)
            names[f"{block}.{ours}.noise.const"] = (f"noises.noise_{num_noises}", _map, _image_map)
            num_noises += 1
        rgb = "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        add_affine(f"{block}.torgb", rgb)
        names[f"{block}.torgb.bias"] = (f"{rgb}.bias", _bias, _image_bias)
    return names


def _discriminator_names(config: DiscriminatorConfig) -> Names:
    """Where each tensor of a discriminator lies."""
    names: Names = {}

    def add(ours: str, weight: str, bias: str | None) -> None:
        names[f"{ours}.weight"] = (f"{weight}.weight", _same, _same)
        if bias is not None:
            names[f"{ours}.bias"] = (f"{bias}.bias", _same, _same)

    sides = config.plan.nominal[::-1]
    add(f"b{sides[0]}.fromrgb", "convs.0.0", "convs.0.1")
    for i, side in enumerate(sides[:-1], 1):
        add(f"b{side}.conv0", f"convs.{i}.conv1.0", f"convs.{i}.conv1.1")
        add(f"b{side}.conv1", f"convs.{i}.conv2.1", f"convs.{i}.conv2.2")
        add(f"b{side}.skip", f"convs.{i}.skip.1", None)
    add("b4.conv", "final_conv.0", "final_conv.1")
    add("b4.fc", "final_linear.0", "final_linear.0")
    add("b4.out", "final_linear.1", "final_linear.1")
    return names


def _kernels(num_blocks: int, *, is_generator: bool) -> dict[str, Tensor]:
    """The FIR filters of a network."""
    f = make_filter(_TAPS)
    if is_generator:
        owners = [f"convs.{2 * i}.conv.blur" for i in range(num_blocks)]
        return {f"{name}{_KERNEL}": f * 4 for name in [*owners, *(f"to_rgbs.{i}.upsample" for i in range(num_blocks))]}
    owners = [f"convs.{i}.{layer}.0" for i in range(1, num_blocks + 1) for layer in ("conv2", "skip")]
    return {f"{name}{_KERNEL}": f for name in owners}


def _without_kernels(
    tensors: Mapping[str, Tensor], num_blocks: int, what: str, *, is_generator: bool
) -> dict[str, Tensor]:
    """The state but for its FIR filters, which must be the usual ones where there are any."""
    rest = {name: tensor for name, tensor in tensors.items() if not name.endswith(_KERNEL)}
    if len(rest) == len(tensors):
        return rest
    for name, want in _kernels(num_blocks, is_generator=is_generator).items():
        kernel = take(tensors, name, what)
        if kernel.shape != want.shape or not torch.allclose(kernel, want, atol=1e-5):
            raise ValueError(
                f"{what}: got another low-pass filter in {name!r}, expected [1, 3, 3, 1]; it has no config here"
            )
    return rest


class GeneratorState(dict[str, Tensor]):
    """A generator's state dict, with the mean of w beside it, since the project's module has no place for it.

    Args:
        tensors: The state dict.
        latent_avg: [W], which files keep under that name.
    """

    def __init__(self, tensors: Mapping[str, Tensor], latent_avg: Tensor) -> None:
        super().__init__(tensors)
        self.latent_avg = latent_avg


def generator(state: Mapping[str, Any], latent_avg: Tensor | None = None) -> Generator:
    """Makes a generator from a state dict; see `from_state`."""
    latent_avg = getattr(state, _W_AVG, None) if latent_avg is None else latent_avg
    what, tensors = "rosinality generator", as_tensors(state)
    num_blocks = count_layers(tensors, "to_rgbs.")
    if not num_blocks or not has(tensors, "to_rgb1."):
        raise ValueError(f"{what}: got no known name, expected input.input, conv1, to_rgb1, convs and to_rgbs")
    tensors = _without_kernels(tensors, num_blocks, what, is_generator=True)
    biases = ["conv1.activate.bias", *(f"convs.{2 * i + 1}.activate.bias" for i in range(num_blocks))]
    channel_base, channel_max = infer_channels([take(tensors, name, what, 1).shape[0] for name in biases], what)
    w_dim = take(tensors, "conv1.conv.modulation.weight", what, 2).shape[1]
    config = GeneratorConfig(
        resolution=4 << num_blocks,
        img_channels=take(tensors, "to_rgb1.bias", what, 4).shape[1],
        z_dim=w_dim,
        w_dim=w_dim,
        mapping_layers=max(count_layers(tensors, "style.") - 1, 0),  # style.0 normalises and has no weights
        architecture="skip",
        channel_base=channel_base,
        channel_max=channel_max,
    )
    tensors[_W_AVG] = torch.zeros(w_dim) if latent_avg is None else latent_avg.float().reshape(-1)
    sources = {ours: (theirs, layout) for ours, (theirs, layout, _) in _generator_names(config).items()}
    draws_noise = not has(tensors, NOISES)
    if draws_noise:  # views of one number stand in for the maps: whether the rest fits comes first
        tensors |= {
            theirs: torch.zeros(()).expand(1, 1, *shapes_of(config)[ours])
            for ours, (theirs, _) in sources.items()
            if theirs.startswith(NOISES)
        }
    G = build(config, tensors, sources | {"mapping.w_avg": (_W_AVG, _same)}, what)
    assert isinstance(G, Generator)
    if draws_noise:
        rng = torch.Generator().manual_seed(0)
        for one in G.synthesis.noise_inputs():
            one.const.copy_(torch.randn(one.const.shape, generator=rng))
    return G


def discriminator(state: Mapping[str, Any]) -> Discriminator:
    """Makes a discriminator from a state dict; see `from_state`."""
    what, tensors = "rosinality discriminator", as_tensors(state)
    num_blocks = count_layers(tensors, "convs.") - 1
    if num_blocks < 1 or not has(tensors, "final_conv."):
        raise ValueError(f"{what}: got no known name, expected convs, final_conv and final_linear")
    tensors = _without_kernels(tensors, num_blocks, what, is_generator=False)
    biases = ["final_conv.1.bias", *(f"convs.{i}.conv1.1.bias" for i in range(num_blocks, 0, -1))]
    channels = [take(tensors, name, what, 1).shape[0] for name in biases]
    channel_base, channel_max = infer_channels(channels, what)
    config = DiscriminatorConfig(
        resolution=4 << num_blocks,
        img_channels=take(tensors, "convs.0.0.weight", what, 4).shape[1],
        architecture="resnet",
        channel_base=channel_base,
        channel_max=channel_max,
        mbstd_channels=take(tensors, "final_conv.0.weight", what, 4).shape[1] - channels[0],
    )
    sources = {ours: (theirs, layout) for ours, (theirs, layout, _) in _discriminator_names(config).items()}
    D = build(config, tensors, sources, what)
    assert isinstance(D, Discriminator)
    return D


def from_state(
    g_state: Mapping[str, Any], d_state: Mapping[str, Any] | None = None, *, latent_avg: Tensor | None = None
) -> tuple[Generator, Discriminator | None]:
    """Makes networks from state dicts of rosinality/stylegan2-pytorch.

    Every config value is inferred from names and shapes. Noise maps that the state lacks are drawn, always the same.

    Args:
        g_state: The generator's state dict, as ``g`` or ``g_ema`` of its files.
        d_state: The discriminator's state dict, as ``d`` of its files, or None.
        latent_avg: The mean of w [W] or [1, W], which its files keep beside the states; when None, that of `to_state`,
            or zeros.

    Returns:
        (generator, discriminator or None), in float32 on the CPU.

    Raises:
        ValueError: A tensor is missing, superfluous or of another shape, or the network has no config here.
    """
    return generator(g_state, latent_avg), None if d_state is None else discriminator(d_state)


def to_state(network: Generator | Discriminator) -> dict[str, Tensor]:
    """The state dict that rosinality/stylegan2-pytorch has for a network of ours; its classes load it strictly.

    Args:
        network: An unconditional, square generator with output skips, or a residual discriminator, of StyleGAN2.

    Returns:
        The project's names to tensors, which share memory with the network's but for the filters; of a generator as a
        `GeneratorState`.

    Raises:
        ValueError: The project has no such network.
    """
    require_rosinality(network)
    names = _generator_names(network.config) if isinstance(network, Generator) else _discriminator_names(network.config)
    tensors = network.state_dict()
    state = {theirs: back(tensors[ours]) for ours, (theirs, _, back) in names.items()}
    state |= _kernels(network.config.plan.doublings, is_generator=isinstance(network, Generator))
    return GeneratorState(state, network.w_avg) if isinstance(network, Generator) else state


def require_rosinality(network: Generator | Discriminator) -> None:
    """Refuses networks that rosinality/stylegan2-pytorch does not have.

    Raises:
        ValueError: Names what it lacks.
    """
    config = network.config
    refusals = Refusals("rosinality/stylegan2-pytorch")
    refusals.require_stylegan2(config)
    refusals.unless(config.c_dim == 0, "labels")
    refusals.unless(config.blur, "unfiltered resampling")
    if isinstance(config, GeneratorConfig):
        refusals.unless(config.architecture == "skip", f"the generator architecture {config.architecture!r}")
        refusals.unless(config.use_noise, "no noise")
        refusals.unless(config.z_dim == config.w_dim, "z and w of different lengths")
        refusals.unless(config.mapping_features in (None, config.w_dim), "a mapping network of another width")
    elif isinstance(config, DiscriminatorConfig):
        refusals.unless(config.architecture == "resnet", f"the discriminator architecture {config.architecture!r}")
        refusals.unless(config.head_features in (None, config.channels[0]), "a last layer of another width")


def unheld(network: Generator | Discriminator) -> list[str]:
    """What changes a network's results, or the classes that it needs, and has no place in the state dict."""
    config, found = network.config, []
    if config.conv_clamp is not None:
        found.append(f"the clamp on activations at ±{config.conv_clamp:g}")
    if config.img_channels != 3:
        found.append(f"{config.img_channels} image channels, where the project's classes have 3")
    usual = [[min(16384 * multiplier // r, 512) for r in config.plan.nominal] for multiplier in (1, 2)]
    if config.channels not in usual:
        found.append("numbers of channels that are not the project's: its classes need its table changed")
    if isinstance(config, GeneratorConfig) and config.mapping_lr_multiplier != 0.01:
        found.append(f"the mapping network's learning rate: its class needs lr_mlp={config.mapping_lr_multiplier:g}")
    if isinstance(config, DiscriminatorConfig) and (config.mbstd_group, config.mbstd_channels) != (4, 1):
        found.append(f"the minibatch standard deviation over {config.mbstd_group} samples")
    return found
