"""``styleforge summary``: the networks of a preset, block by block, without making a single weight."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from styleforge.cli.options import Resolution

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

    from styleforge.networks import DiscriminatorConfig, GeneratorConfig


@dataclass(frozen=True, slots=True)
class Row:
    """One block of a network."""

    name: str
    """Name of the module, as in a state dict."""
    size: tuple[int, int] | None
    """(height, width) that it works at; None for the mapping network."""
    channels: int
    """Feature maps at that size; the length of w for the mapping network."""
    output: tuple[int, ...]
    """Shape of its result, without the batch."""
    parameters: int
    """Number of its trainable values."""


def summarize(generator: GeneratorConfig, discriminator: DiscriminatorConfig) -> dict[str, list[Row]]:
    """Lists the blocks of two networks; they are made on the meta device, which takes neither memory nor time.

    Returns:
        ``G`` and ``D``, each from its input to its output.
    """
    import torch

    from styleforge.networks import Discriminator, Generator

    with torch.device("meta"):
        G, D = Generator(generator), Discriminator(discriminator)
        outputs = _record_outputs([G.mapping, *G.synthesis.blocks, *D.blocks])
        c = torch.zeros(1, generator.c_dim)
        D(G(torch.zeros(1, generator.z_dim), c), c)

    def row(name: str, module: nn.Module, size: tuple[int, int] | None, channels: int) -> Row:
        return Row(name, size, channels, outputs[module], sum(p.numel() for p in module.parameters()))

    names = {module: name for network in (G, D) for name, module in network.named_modules()}
    rows = {"G": [row("mapping", G.mapping, None, generator.w_dim)], "D": []}
    for block in G.synthesis.blocks:
        rows["G"].append(row(names[block], block, block.size, generator.channels[block.index]))
    for stage, channels in zip(D.blocks, reversed(discriminator.channels), strict=True):
        rows["D"].append(row(names[stage], stage, stage.size, channels))
    return rows


def _record_outputs(modules: Iterable[nn.Module]) -> dict[nn.Module, tuple[int, ...]]:
    """Notes the shape of each module's result, without the batch, whenever it runs."""
    outputs: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[module] = tuple(output.shape[1:])

    for module in modules:
        module.register_forward_hook(note)
    return outputs


@click.command(
    epilog="""\b
Examples:
  styleforge summary --cfg=config-f --resolution=1024
  styleforge summary --cfg=config-e-gresnet-dskip --resolution=512x384 --c-dim=10
  styleforge summary --list""",
)
@click.option("--cfg", default="config-f", show_default=True, help="Preset; --list shows them all.")
@click.option(
    "--resolution", type=Resolution(), metavar="WxH", default="1024", show_default=True, help="Size in pixels."
)
@click.option("--channels", type=int, metavar="INT", default=3, show_default=True, help="Image channels, 1 to 16.")
@click.option(
    "--c-dim", type=int, metavar="INT", default=0, show_default=True, help="Length of a label; 0 for no labels."
)
@click.option(
    "--cbase", type=click.IntRange(min=1), metavar="INT", help="Channels at resolution r are min(cbase / r, cmax)."
)
@click.option("--cmax", type=click.IntRange(min=1), metavar="INT", help="Upper limit of the channels.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the whole configs.")
@click.option("--list", "list_presets", is_flag=True, help="List the presets and leave.")
def summary(
    cfg: str,
    resolution: tuple[int, int],
    channels: int,
    c_dim: int,
    cbase: int | None,
    cmax: int | None,
    as_json: bool,
    list_presets: bool,
) -> None:
    """Show the networks of a preset: blocks, shapes and parameters."""
    from rich.console import Console

    from styleforge.networks import network_preset

    if list_presets:
        Console().print(_preset_table(resolution))
        return
    G, D = network_preset(cfg, resolution, img_channels=channels, c_dim=c_dim, channel_base=cbase, channel_max=cmax)
    rows = summarize(G, D)
    if as_json:
        networks = {
            name: {
                "config": config.to_dict(),
                "blocks": [asdict(row) for row in rows[name]],
                "parameters": sum(row.parameters for row in rows[name]),
            }
            for name, config in (("G", G), ("D", D))
        }
        click.echo(json.dumps({"cfg": cfg} | networks, indent=2))
        return
    for title, key in (("Generator", "G"), ("Discriminator", "D")):
        Console().print(_network_table(f"{title} of {cfg}", rows[key]))


def _network_table(title: str, rows: list[Row]) -> Table:
    """One network: a line per block, and the sum of the parameters."""
    from rich.table import Table

    total = sum(row.parameters for row in rows)
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("block", "total")
    for name in ("height×width", "channels", "output"):
        table.add_column(name, justify="right")
    table.add_column("parameters", f"{total:,}", justify="right")
    for row in rows:
        size = "" if row.size is None else f"{row.size[0]}×{row.size[1]}"
        output = f"[N, {', '.join(map(str, row.output))}]"
        table.add_row(row.name, size, str(row.channels), output, f"{row.parameters:,}")
    return table


def _preset_table(resolution: tuple[int, int]) -> Table:
    """All presets: a line for each, with what tells it from the others."""
    from rich.table import Table

    from styleforge.networks import network_preset, preset_names

    table = Table(title="Presets (--cfg)", title_justify="left")
    for name in ("name", "style block", "growing", "G", "D", "cbase"):
        table.add_column(name, no_wrap=True)
    for name in preset_names():
        G, D = network_preset(name, resolution)
        growing = "yes" if G.progressive else "no"
        table.add_row(name, G.style_block, growing, G.architecture, D.architecture, str(G.channel_base))
    return table
