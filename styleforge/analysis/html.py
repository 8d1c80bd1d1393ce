"""One HTML page with everything inside: pictures as data, no script, no server, no network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from styleforge.files import atomic_path

_TYPES = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0.2rem; } h2 { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem; }
nav { margin: 1rem 0; } nav a { margin-right: 1rem; white-space: nowrap; }
table { border-collapse: collapse; } td { padding: 0.1rem 1.5rem 0.1rem 0; vertical-align: top; }
figure { margin: 1rem 0; } img { max-width: 100%; }
figcaption { color: #666; font-size: 0.85rem; }
.summary { font-weight: 600; } .absent { color: #666; font-style: italic; }
pre { max-height: 24rem; overflow: auto; background: #f6f6f6; padding: 0.6rem; font-size: 0.8rem; }
"""


@dataclass(kw_only=True, slots=True)
class Section:
    """One part of the page."""

    name: str
    """For links within the page."""
    title: str
    """Its heading."""
    question: str
    """What it is about, and how to read it."""
    summary: str = ""
    """What was found."""
    pictures: list[Path] = field(default_factory=list)
    """Files that are put into the page."""
    numbers: Mapping[str, Any] | Sequence[Any] | None = None
    """What can be unfolded below, as JSON."""
    absent: str = ""
    """Why there is nothing to see, if so."""


def write_page(path: str | Path, title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> Path:
    """Writes the page.

    Args:
        path: Target file.
        title: Heading.
        facts: What stands in the table below it.
        sections: In this order.

    Returns:
        The path.

    Raises:
        OSError: A picture cannot be read, or the page not written; an older one stays.
    """
    rows = "".join(f"<tr><td>{_text(key)}</td><td>{_text(value)}</td></tr>" for key, value in facts.items())
    links = "".join(f'<a href="#{_text(section.name)}">{_text(section.title)}</a>' for section in sections)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>'
        f"<h1>{_text(title)}</h1>\n<table>{rows}</table>\n<nav>{links}</nav>\n"
        + "".join(_section(section) for section in sections)
        + "</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _section(section: Section) -> str:
    parts = [f'<section id="{_text(section.name)}"><h2>{_text(section.title)}</h2>\n<p>{_text(section.question)}</p>\n']
    if section.absent:
        parts.append(f'<p class="absent">{_text(section.absent)}</p>\n')
    if section.summary:
        parts.append(f'<p class="summary">{_text(section.summary)}</p>\n')
    parts += [_picture(path) for path in section.pictures]
    if section.numbers is not None:
        text = json.dumps(section.numbers, indent=1)
        parts.append(f"<details><summary>All numbers</summary><pre>{_text(text)}</pre></details>\n")
    return "".join(parts) + "</section>\n"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = _text(path.stem)
    return (
        f'<figure><img src="data:{_TYPES[path.suffix]};base64,{data}" alt="{name}">'
        f"<figcaption>{name}</figcaption></figure>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)
