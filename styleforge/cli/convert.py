"""``styleforge convert``: a checkpoint of any kind as one of another kind."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import GroupedCommand, GroupedOption

if TYPE_CHECKING:
    from styleforge.convert.graphs import Noise, Part

_target = partial(click.option, cls=GroupedOption, group="Target")
_graph = partial(click.option, cls=GroupedOption, group="Graphs (onnx, torch-export)")

KINDS = ["safetensors", "official", "rosinality", "onnx", "torch-export"]
HUB = "hf://"


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge convert ffhq.pkl ffhq.safetensors
  styleforge convert https://example.org/stylegan2.pkl#sha256=0123abcd net.safetensors
  styleforge convert runs/00000-auto-photos-gpus1-batch16-gamma0.8 photos.pt
  styleforge convert ffhq.pkl ffhq.pth --to official
  styleforge convert demo demo.onnx --part synthesis --noise input
  styleforge convert demo hf://someone/portraits""",
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@_target(
    "--to",
    type=click.Choice(KINDS),
    help="Kind of file; by default that of DST's ending: .safetensors, .pth (official), .pt (rosinality), .onnx, .pt2 "
    "(torch-export).",
)
@_target("--private", is_flag=True, help="Of hf://OWNER/NAME: a new repository is private.")
@_graph(
    "--part", type=click.Choice(["whole", "mapping", "synthesis"]), default="whole", show_default=True,
    help="What the graph holds.",
)  # fmt: skip
@_graph(
    "--noise", type=click.Choice(["const", "input", "none"]), default="const", show_default=True,
    help="const: the network's own maps lie in the graph; input: the caller gives them; none: left out.",
)  # fmt: skip
def convert(source: str, target: str, to: str | None, private: bool, part: Part, noise: Noise) -> None:
    """Write a checkpoint of any kind as one of another kind, with a model card in it.

    SRC is a file of styleforge, of NVIDIA's releases (StyleGAN, StyleGAN2, StyleGAN2-ADA; PyTorch or TensorFlow), of
    rosinality/stylegan2-pytorch, or a state dict under their names; or a URL, a run directory, a bundled model. Its
    kind follows from its contents, and nothing in it is executed. DST is a file, or hf://OWNER/NAME on the Hugging Face
    Hub. What DST cannot hold is refused or listed.
    """
    from styleforge.convert import hub, kind_of, load_any, onnx, target_of, write

    if not target.startswith(HUB):
        to = to or target_of(target)  # before any work
    loaded = load_any(source)
    click.echo(f"Read {source}: {kind_of(loaded)}.")
    for note in loaded.info.get("notes", []):
        click.echo(f"Note: {note}.", err=True)
    if target.startswith(HUB):
        click.echo(f"Wrote {hub.push(loaded, target.removeprefix(HUB), private=private)}.")
        return
    for line in write(loaded, target, to, part=part, noise=noise):
        click.echo(f"Not in {target}: {line}.", err=True)
    click.echo(f"Wrote {target}: {to}.")
    if to == "onnx":
        worst = onnx.largest_difference(loaded.generator, target, part=part, noise=noise)
        if worst > onnx.TOLERANCE:
            raise ValueError(
                f"{target}: got a difference of {worst:.2g} between ONNX Runtime and PyTorch, expected at most "
                f"{onnx.TOLERANCE:g}; do not use the file, and report this"
            )
        click.echo(f"ONNX Runtime and PyTorch differ by at most {worst:.1e} (batches of 1 and 3, psi 1 and 0.5).")
