# SPDX-License-Identifier: Apache-2.0
"""The click tree as values, from which the reference and the man page are made."""

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc

import click


@dataclass(frozen=True)
class OptionText:
    forms: str  # as "-o, --output [table|json|yaml]"
    help: str


@dataclass(frozen=True)
class CommandText:
    path: str  # as "valkyrie-ctl limits set"
    usage: str  # its arguments, as "[OPTIONS] NAME"
    help: tuple[str, ...]  # paragraphs
    examples: tuple[str, ...]  # command lines
    options: tuple[OptionText, ...]
    group: bool


def options_of(command: click.Command, ctx: click.Context) -> tuple[OptionText, ...]:
    """The options in declared order, without --help, which every command has."""
    texts = []
    for parameter in command.params:
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            texts.append(OptionText(record[0], " ".join(record[1].split())))
    return tuple(texts)


def examples_of(epilog: str) -> tuple[str, ...]:
    """The lines of the block that options.examples made."""
    block = epilog.partition("\n\n")[0]
    return tuple(line.strip() for line in block.splitlines()[2:]) if "Examples:" in block else ()


def walk(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[CommandText]:
    """The command and all below it, parents first."""
    ctx = click.Context(command, info_name=name, parent=parent)
    group = isinstance(command, click.Group)
    yield CommandText(
        path=path_of(ctx),
        usage=" ".join(command.collect_usage_pieces(ctx)),
        help=tuple(" ".join(text.split()) for text in cleandoc(command.help or "").split("\n\n")),
        examples=examples_of(command.epilog or ""),
        options=options_of(command, ctx),
        group=group,
    )
    if isinstance(command, click.Group):
        for child in command.list_commands(ctx):
            below = command.get_command(ctx, child)
            if below is not None and not below.hidden:
                yield from walk(below, child, ctx)


def path_of(ctx: click.Context) -> str:
    """The words that lead to a command."""
    words: list[str] = []
    at: click.Context | None = ctx
    while at is not None:
        words.insert(0, at.info_name or "")
        at = at.parent
    return " ".join(words)


def commands() -> list[CommandText]:
    """The whole of valkyrie-ctl."""
    from valkyrie.control.cli.main import PROGRAM, cli

    return list(walk(cli, PROGRAM))
