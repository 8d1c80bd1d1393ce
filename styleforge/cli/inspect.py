"""``styleforge inspect``: what a file holds, read without executing anything in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from styleforge.checkpoint import Checkpoint


@click.command(
    epilog="""\b
Examples:
  styleforge inspect network-snapshot-025000.pkl
  styleforge inspect demo --json""",
)
@click.argument("source", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the whole configs.")
def inspect(source: str, as_json: bool) -> None:
    """Show what FILE holds: kind, networks, sizes, parameters, where it comes from, and what each target would lose.

    FILE is whatever `styleforge convert` takes.
    """
    from styleforge.convert import load_any

    facts = describe(load_any(source))
    click.echo(json.dumps(facts, indent=2) if as_json else _as_text(facts))


def describe(loaded: Checkpoint) -> dict[str, Any]:
    """The facts about a checkpoint, as JSON objects.

    Returns:
        ``kind``, the model card's facts, ``training`` (number of tensors of a training state), and ``would_lose``: for
        each kind of file that it could be converted to, a list of what that would not hold, or why it cannot be.
    """
    from styleforge.convert import TARGETS, kind_of
    from styleforge.convert.card import make_card
    from styleforge.convert.writing import unheld

    would_lose: dict[str, list[str] | str] = {}
    for target in TARGETS:
        try:
            would_lose[target] = unheld(loaded, target)
        except ValueError as error:
            would_lose[target] = str(error)
    facts = make_card(loaded)
    del facts["unheld"]
    facts["origin"] = loaded.info.get("origin", {})
    facts["source"] = loaded.info.get("source", {"file": loaded.source})
    return {"kind": kind_of(loaded)} | facts | {"training": len(loaded.training), "would_lose": would_lose}


def _as_text(facts: dict[str, Any]) -> str:
    """The facts for people: a line each."""
    lines = [f"kind          {facts['kind']}"]
    for key, value in facts["source"].items():
        lines += [f"{key:<13} {value}"] if key != "kind" else []
    lines += [f"made from     {key} {value}" for key, value in facts["origin"].items()]
    for name, network in facts["networks"].items():
        config = network["config"]
        size = config["resolution"]
        size = f"{size}×{size}" if isinstance(size, int) else "×".join(map(str, size))
        parts = [f"{size}, {config['img_channels']} channels", config["architecture"]]
        parts += [config["style_block"], f"z {config['z_dim']}, w {config['w_dim']}"] if "z_dim" in config else []
        parts += [f"labels of length {config['c_dim']}"] if config["c_dim"] else []
        parts += [f"clamp {config['conv_clamp']:g}"] if config["conv_clamp"] is not None else []
        lines.append(f"{name:<13} {', '.join(parts)}; {network['parameters']:,} parameters")
    lines.append("training      " + ("unknown" if facts["kimg"] is None else f"{facts['kimg']:g} kimg"))
    if facts["training"]:
        lines.append(f"              training can go on: {facts['training']} tensors of its state")
    lines += [f"{name:<13} {value:.5g}" for name, value in sorted(facts["metrics"].items())]
    lines.append(f"licence       {facts['licence']}")
    lines += [f"note          {note}" for note in facts["notes"]]
    lines.append("As another kind of file it would lose:")
    for target, lost in facts["would_lose"].items():
        reasons = lost if isinstance(lost, list) else [f"cannot be: {lost}"]
        lines += [f"  {target:<13} {reason}" for reason in reasons or ["nothing"]]
    return "\n".join(lines)
