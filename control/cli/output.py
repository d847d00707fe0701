# SPDX-License-Identifier: Apache-2.0
"""What commands print: tables for people, JSON and YAML for programs.

A view is made of blocks, pure values. On a terminal tables are drawn by rich, elsewhere they are plain
aligned text. Text that comes from packets or other users never reaches the terminal with its control codes.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import click

STYLES: Mapping[str, str] = {
    "ok": "green",
    "attached": "green",
    "enforcing": "green",
    "pass": "green",
    "yes": "green",
    "warn": "yellow",
    "waiting": "yellow",
    "shadow": "yellow",
    "fail": "red",
    "drop": "red",
    "no": "red",
}


@dataclass(frozen=True)
class Column:
    title: str
    right: bool = False
    styled: bool = False  # cells that are words of STYLES get their colour


@dataclass(frozen=True)
class Table:
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    empty: str = "none"  # printed in place of a table without rows
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair a line."""

    pairs: Sequence[tuple[str, str]]
    title: str = ""


@dataclass(frozen=True)
class Line:
    text: str
    style: str = ""


LATE_S = 1.0  # that an end may come before its time, by clocks and roundings

Block: TypeAlias = Table | Facts | Line
Kind: TypeAlias = Literal["table", "json", "yaml"]


def clean(text: str) -> str:
    """The text without characters that would steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Rows as lines, columns two blanks apart, none trailing."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def plain(block: Block) -> list[str]:
    """A block as lines of plain text."""
    if isinstance(block, Line):
        return [clean(block.text)]
    title = [block.title] if block.title else []
    if isinstance(block, Facts):
        width = max((len(name) for name, _ in block.pairs), default=0)
        return title + [f"{name.ljust(width)}  {clean(value)}".rstrip() for name, value in block.pairs]
    if not block.rows:
        return [*title, block.empty]
    rows = [
        [column.title for column in block.columns],
        *([clean(cell) for cell in row] for row in block.rows),
    ]
    return title + aligned(rows, [column.right for column in block.columns])


def rich_table(block: Table) -> Any:
    """A block as a rich table; cells are text, never markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, title=block.title or None, title_justify="left")
    for column in block.columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in block.rows:
        table.add_row(
            *(
                Text(clean(cell), style=STYLES.get(cell, "") if column.styled else "")
                for column, cell in zip(block.columns, row, strict=True)
            )
        )
    return table


def on_terminal() -> bool:
    return sys.stdout.isatty()


def print_blocks(blocks: Sequence[Block]) -> None:
    """Blocks on standard output, an empty line between them."""
    terminal = on_terminal()
    for number, block in enumerate(blocks):
        if number and not (isinstance(block, Line) and isinstance(blocks[number - 1], Line)):
            click.echo()
        if terminal and isinstance(block, Table) and block.rows:
            from rich.console import Console

            Console(highlight=False).print(rich_table(block))
            continue
        style = block.style if isinstance(block, Line) else ""
        for line in plain(block):
            click.echo(click.style(line, fg=style) if style else line)


@dataclass(frozen=True)
class Output:
    """How this run prints."""

    kind: Kind = "table"

    def show(self, data: object, view: Callable[[], Sequence[Block]]) -> None:
        """Prints `data` as the API gave it, or for people what `view` makes of it."""
        if self.kind == "json":
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        elif self.kind == "yaml":
            from valkyrie.control.cli.yaml_text import as_yaml

            click.echo(as_yaml(data), nl=False)
        else:
            print_blocks(view())

    def item(self, data: object, line: Callable[[], Line]) -> None:
        """Prints one element of a stream: a line, a line of JSON, or a YAML document."""
        if self.kind == "json":
            click.echo(json.dumps(data, ensure_ascii=False))
        elif self.kind == "yaml":
            from valkyrie.control.cli.yaml_text import as_yaml

            click.echo(f"---\n{as_yaml(data)}", nl=False)
        else:
            print_blocks([line()])
        sys.stdout.flush()


def say_if_cut(began: float, seconds: float) -> None:
    """On standard error, when what was to last so long since `began` (time.monotonic) has ended already."""
    lasted = time.monotonic() - began
    if lasted < seconds - LATE_S:
        click.echo(f"valkyried ended it after {lasted:.0f} s of {seconds:.0f}", err=True)
