"""The field's names of metrics, such as ``fid50k_full``, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["fid", "kid", "pr", "is", "ppl"]

NAMES = (
    "fid50k_full",
    "kid50k_full",
    "pr50k3_full",
    "is50k",
    "ppl2_wend",
    "fid50k",
    "kid50k",
    "pr50k3",
    "ppl_wend",
    "ppl_wfull",
    "ppl_zend",
    "ppl_zfull",
    "fid_quick",
)
"""The names that help texts list; any other count may stand in them, as in ``fid10k_full`` or ``ppl10k2_wend``."""

_FULL_LIMITS = {"fid": None, "kid": 1_000_000, "pr": 200_000}
"""How many real pictures ``_full`` takes at most, as in the official release; None for all."""
_COUNT = r"(?P<count>\d+(?:\.\d+)?)k"
_PATTERNS = (
    re.compile(rf"(?P<kind>fid|kid){_COUNT}(?P<full>_full)?"),
    re.compile(rf"(?P<kind>pr){_COUNT}(?P<k>[1-9]\d?)(?P<full>_full)?"),
    re.compile(rf"(?P<kind>is){_COUNT}"),
    re.compile(rf"(?P<kind>ppl)(?:{_COUNT})?(?P<two>2)?_(?P<space>[zw])(?P<sampling>end|full)"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One metric, with its numbers."""

    name: str
    """As it was asked for."""
    kind: Kind
    """Fréchet distance, kernel distance, precision and recall, inception score, or perceptual path length."""
    num: int
    """Generated pictures, or pairs of them for path lengths."""
    max_real: int | None = 0
    """Real pictures at most: 0 for none, None for all."""
    full: bool = False
    """Whether it is one of the ``_full``, in which mirror images never count."""
    k: int = 3
    """Precision and recall: which nearest neighbour makes the radius."""
    space: Literal["z", "w"] = "w"
    """Path length: where the path lies."""
    sampling: Literal["end", "full"] = "end"
    """Path length: at its start, or anywhere on it."""
    crop: bool = False
    """Path length: look at the part of the picture where a face is."""


def parse(name: str) -> Recipe:
    """Reads one name.

    ``fid50k_full``: 50,000 generated pictures against all real ones; without ``_full`` against as many real ones.
    ``pr50k3``: third nearest neighbours. ``ppl2_wend``: path length in w at the path's start, 50,000 pairs;
    without the 2 on the face crop, as in StyleGAN. ``fid_quick``: another name of ``fid5k``.

    Raises:
        ValueError: It names no metric, or too few pictures.
    """
    for pattern in _PATTERNS:
        match = pattern.fullmatch("fid5k" if name == "fid_quick" else name)
        if match is None:
            continue
        groups: dict[str, Any] = match.groupdict()
        num = round(float(groups["count"] or 50) * 1000)
        if num < 2:
            raise ValueError(f"metrics: got {name!r} with {num} pictures, expected at least 2, such as {NAMES[0]}")
        kind: Kind = groups["kind"]
        if kind == "ppl":
            return Recipe(
                name=name,
                kind=kind,
                num=num,
                space=groups["space"],
                sampling=groups["sampling"],
                crop=not groups["two"],
            )
        if kind == "is":
            return Recipe(name=name, kind=kind, num=num)
        max_real = _FULL_LIMITS[kind] if groups["full"] else num
        k, full = int(groups.get("k") or 3), bool(groups["full"])
        return Recipe(name=name, kind=kind, num=num, max_real=max_real, full=full, k=k)
    raise ValueError(
        f"metrics: got {name!r}, expected names such as {', '.join(NAMES)}, with any count, as in fid10k_full "
        "(--metrics)"
    )


def parse_list(names: str | Sequence[str]) -> list[Recipe]:
    """Reads names, given as a list or with commas between them; a name given twice counts once.

    Raises:
        ValueError: One of them names no metric, or there is none.
    """
    parts = names.split(",") if isinstance(names, str) else list(names)
    recipes = {name: parse(name) for name in (part.strip() for part in parts) if name}
    if not recipes:
        raise ValueError(f"metrics: got none, expected names such as {NAMES[0]} (--metrics)")
    return list(recipes.values())
