"""Model cards: what every file that we write for others says about the networks in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from styleforge import checkpoint
from styleforge.checkpoint import Checkpoint, is_url

_LICENCES = {
    "official": "Weights that NVIDIA publishes are under NVIDIA's own licences, for non-commercial use; weights that "
    "others trained with its code are theirs to license.",
    "rosinality": "Weights keep the licence of whoever trained or published them; those converted from NVIDIA's are "
    "for non-commercial use.",
    "styleforge": "The weights belong to whoever trained them; mind the terms of the data.",
}


def checked_facts(info: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The facts that a file tells about itself, as they may be shown to people.

    Args:
        info: JSON objects out of the file.
        what: The file, for messages.

    Returns:
        The same, with control characters written out.

    Raises:
        ValueError: ``source`` or ``origin`` is no object, or a number is beyond all use.
    """
    for key in ("source", "origin"):
        if not isinstance(info.get(key, {}), dict):
            raise ValueError(f"{what}: got {key} that is no JSON object, expected facts; is the file damaged?")
    try:
        return {_shown(key, what): _shown(value, what) for key, value in info.items()}
    except RecursionError as error:
        raise ValueError(f"{what}: got facts inside each other without end, expected a few; is it damaged?") from error


def _shown(value: Any, what: str) -> Any:
    """One fact, whatever it holds included."""
    if isinstance(value, str):  # a terminal would obey control characters
        return "".join(c if c.isprintable() or c in "\n\t\xa0" else ascii(c)[1:-1] for c in value)
    if isinstance(value, dict):
        return {_shown(key, what): _shown(one, what) for key, one in value.items()}
    if isinstance(value, list):
        return [_shown(one, what) for one in value]
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError(f"{what}: got a number of {value.bit_length():,} bits, expected facts; is the file damaged?")
    return value


def make_card(loaded: Checkpoint, unheld: Sequence[str] = ()) -> dict[str, Any]:
    """Gathers the facts about a checkpoint as JSON objects.

    Args:
        loaded: The networks and where they came from.
        unheld: What the file that the card goes into cannot hold.

    Returns:
        ``source``, ``licence``, ``networks`` (their configs and numbers of parameters), ``kimg`` (training length, None
        when unknown), ``metrics``, ``notes`` (what reading left out or guessed) and ``unheld``.
    """
    networks = {name: network for name in ("G_ema", "G", "D") if (network := getattr(loaded, name)) is not None}
    source = origin(loaded) or {"kind": "styleforge", "file": Path(loaded.source).name}
    kind = str(source["kind"]).partition(" ")[0]
    kimg = loaded.info.get("kimg")
    return {
        "source": source,
        "licence": loaded.info.get("licence") or _LICENCES.get(kind, _LICENCES["styleforge"]),
        "networks": {
            name: {"config": network.config.to_dict(), "parameters": sum(p.numel() for p in network.parameters())}
            for name, network in networks.items()
        },
        "kimg": kimg if isinstance(kimg, int | float) else None,
        "metrics": _numbers(loaded.info.get("metrics")) or _measured(loaded.source),
        "notes": notes(loaded),
        "unheld": list(unheld),
    }


def notes(loaded: Checkpoint) -> list[str]:
    """What reading left out or guessed, of this conversion and of those before."""
    found = loaded.info.get("notes")
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _numbers(values: Any) -> dict[str, float]:
    """The numbers of an object out of a file; nothing of what is none."""
    found = values if isinstance(values, dict) else {}
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def origin(loaded: Checkpoint) -> dict[str, Any]:
    """Where networks came from at first, over all conversions; empty for those that styleforge has trained."""
    for key in ("origin", "source"):
        facts = loaded.info.get(key)
        if isinstance(facts, dict) and "kind" in facts:
            return facts
    return {}


def _measured(source: str) -> dict[str, float]:
    """The metrics that a run directory has of a snapshot, the last line of each counting."""
    if not source or is_url(source):
        return {}
    try:
        path = checkpoint.resolve(source)
    except OSError:  # gone since it was read
        return {}
    found: dict[str, float] = {}
    for log in sorted(path.parent.glob("metric-*.jsonl")):
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if isinstance(values, dict) and values.get("snapshot_pkl") == path.name:
                found |= _numbers(values.get("results"))
    return found


def to_markdown(card: Mapping[str, Any], title: str) -> str:
    """A card as the page that people read.

    Args:
        card: From `make_card`.
        title: The model's name.
    """
    source = card["source"]
    where = source.get("url") or source.get("file", "")
    digest = f", SHA-256 `{source['sha256']}`" if "sha256" in source else ""
    kimg = "unknown" if card["kimg"] is None else f"{card['kimg']:g} thousand pictures"
    conditional = any(network["config"]["c_dim"] for network in card["networks"].values())
    lines = [
        "---",
        "library_name: styleforge",
        f"tags: [stylegan, stylegan2, {'' if conditional else 'un'}conditional-image-generation]",
        "---",
        "",
        f"# {title}",
        "",
        f"- **Source**: {source['kind']}, {where}{digest}",
        f"- **Licence**: {card['licence']}",
        f"- **Training**: {kimg}",
    ]
    for name, value in sorted(card["metrics"].items()):
        lines.append(f"- **{name}**: {value:.5g}")
    for name, network in card["networks"].items():
        config = network["config"]
        lines.append(
            f"- **{name}**: {config['resolution']} pixels, {config['img_channels']} channels, architecture "
            f"{config['architecture']}, labels of length {config['c_dim']}, {network['parameters']:,} parameters"
        )
    lines += [f"- **Note**: {note}" for note in [*card["notes"], *card["unheld"]]]
    configs = {name: network["config"] for name, network in card["networks"].items()}
    usage = ["```python", "from styleforge.checkpoint import load_generator", ""]
    usage += ['G = load_generator("model.safetensors")', "```"]
    return "\n".join([*lines, "", *usage, "", "```json", json.dumps(configs, indent=1), "```", ""])
