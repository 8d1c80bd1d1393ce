"""Presets: the rows of Table 1 and the cells of Table 2 (Karras et al. 2020)."""

from __future__ import annotations

from styleforge.networks.config import DiscriminatorConfig, GeneratorConfig

_ARCHITECTURES = ("orig", "skip", "resnet")


def preset_names() -> list[str]:
    """The names that `network_preset` knows: Table 1's configs, then Table 2's cells."""
    cells = [f"config-e-g{g}-d{d}" for g in _ARCHITECTURES for d in _ARCHITECTURES]
    return [f"config-{letter}" for letter in "abcdef"] + cells


def network_preset(
    name: str,
    resolution: int | tuple[int, int],
    *,
    img_channels: int = 3,
    c_dim: int = 0,
    channel_base: int | None = None,
    channel_max: int | None = None,
) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    """The networks of a configuration of the paper.

    Configs B, C and D have the same networks; they differ in their regularisation, which training presets hold.

    Args:
        name: ``config-a`` … ``config-f`` (Table 1), or ``config-e-g{orig,skip,resnet}-d{orig,skip,resnet}``: a cell
            of Table 2.
        resolution: Side of a square, or (height, width), in pixels.
        img_channels: Image channels, 1 to 16.
        c_dim: Length of a label vector; 0 for an unconditional network.
        channel_base: Channels at resolution r are min(channel_base / r, channel_max); None takes the paper's.
        channel_max: Upper limit of the channels; None takes the paper's.

    Returns:
        (generator's config, discriminator's config).

    Raises:
        ValueError: An unknown name, or a size that the networks cannot make.
    """
    if name not in preset_names():
        raise ValueError(
            f"network preset: got {name!r}, expected one of {', '.join(preset_names())}; choose one of these (--cfg)"
        )
    letter = name.split("-")[1]
    stylegan, progressive = letter == "a", letter in "abcd"
    g_architecture, d_architecture = ("orig", "orig") if progressive else ("skip", "resnet")
    if name.count("-") == 3:  # a cell of Table 2
        g_architecture, d_architecture = (part[1:] for part in name.split("-")[2:])
    shared = {
        "resolution": resolution,
        "img_channels": img_channels,
        "c_dim": c_dim,
        "label_mode": "matrix" if stylegan else "embedding",
        "channel_base": 32768 if letter == "f" else 16384,
        "progressive": progressive,
    }
    widths = {"channel_base": channel_base, "channel_max": channel_max}
    shared |= {field: width for field, width in widths.items() if width is not None}
    G = GeneratorConfig.from_dict(
        shared | {"architecture": g_architecture, "style_block": "instance" if stylegan else "demodulation"}
    )
    D = DiscriminatorConfig.from_dict(
        shared | {"architecture": d_architecture, "convention": "stylegan" if stylegan else "stylegan2"}
    )
    return G, D
