# SPDX-License-Identifier: Apache-2.0
"""Command groups that import a command when it is used, and the place where errors become exit codes."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from valkyrie.control.cli.exits import INTERRUPTED
from valkyrie.control.cli.suggest import did_you_mean
from valkyrie.control.errors import InvalidInput, ValkyrieError


def tell(error: ValkyrieError) -> None:
    """Writes to standard error what happened, and on the next line what to do."""
    where = error.where if isinstance(error, InvalidInput) else ""
    what = error.what if not where or where in error.what else f"{where}: {error.what}"
    click.echo(f"{click.style('error:', fg='red', bold=True)} {what}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='yellow')} {error.hint}", err=True)


class Commands(click.Group):
    """A group that imports a command when it is used. `table`: name -> "module:attribute"."""

    def __init__(self, *args: Any, table: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.table:
            meant = did_you_mean(args[0], self.table) or f"there are: {', '.join(self.table)}"
            raise click.UsageError(f"no command {args[0]!r}; {meant}", ctx)
        return super().resolve_command(ctx, args)


class Root(Commands):
    """The outermost group: errors of the project and Ctrl-C end here."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ValkyrieError as error:
            tell(error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
