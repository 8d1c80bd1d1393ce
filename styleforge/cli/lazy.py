"""Groups of commands that are imported only when they are called, so that ``--help`` is instant."""

from __future__ import annotations

import difflib
import importlib

import click


class LazyGroup(click.Group):
    """A click group whose commands are named in a table and imported on first use.

    Args:
        verbs: verb -> (module:command, one-line help). The help stands there so that listing imports nothing.
        attributes: As `click.Group` takes them.
    """

    def __init__(self, *, verbs: dict[str, tuple[str, str]], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click types each attribute on its own
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the table's order: the order in which a person meets them."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one verb's command."""
        if cmd_name not in self.verbs:
            return None
        module, attribute = self.verbs[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb, and suggests one for a misspelt one."""
        if args and args[0] not in self.verbs and (near := difflib.get_close_matches(args[0], self.verbs, 1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in self.verbs.items()])
