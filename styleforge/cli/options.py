"""What the commands share: help with options under titles, types of options, and the progress bar."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click


class GroupedOption(click.Option):
    """An option that is listed under a title in the command's help."""

    def __init__(self, *arguments: Any, group: str = "Options", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists its options under the titles of their groups, in order of appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section for each group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                sections.setdefault(option.group if isinstance(option, GroupedOption) else "Other", []).append(record)
        for title, records in sorted(sections.items(), key=lambda section: section[0] == "Other"):
            with formatter.section(title):
                formatter.write_dl(records)


class Resolution(click.ParamType):
    """``64`` or ``WxH`` such as ``512x384`` (width × height, as the field writes it), read as (height, width)."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parses the text."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", str(value).strip())
        if not match or not int(match[1]) or match[2] == "0":
            self.fail(f"got {value!r}, expected a side such as 64, or WIDTHxHEIGHT such as 512x384", param, ctx)
        width = int(match[1])
        return int(match[2] or width), width


class Colour(click.ParamType):
    """A colour such as ``white`` or ``#ff8800``, read as (red, green, blue)."""

    name = "colour"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        """Parses the text."""
        from PIL import ImageColor

        if isinstance(value, tuple):
            return value
        try:
            return ImageColor.getrgb(value)[:3]
        except ValueError:
            self.fail(f"got {value!r}, expected a colour such as white, gray or #ff8800", param, ctx)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on the error stream while the block runs; yields a function of (done, total) that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
