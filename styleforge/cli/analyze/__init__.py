"""``styleforge analyze``: a table of what can be looked at in a generator."""

from __future__ import annotations

import click

from styleforge.cli.lazy import LazyGroup

VERBS: dict[str, tuple[str, str]] = {
    "factors": ("styleforge.cli.analyze.factors:factors", "Measure how much a generator of portraits varies."),
}
"""See `styleforge.cli.lazy.LazyGroup`."""


@click.command(
    cls=LazyGroup,
    verbs=VERBS,
    epilog="Each analysis explains itself: styleforge analyze ANALYSIS --help",
)
def analyze() -> None:
    """Look into a generator: what it makes, and what goes wrong in it."""
