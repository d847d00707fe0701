# SPDX-License-Identifier: Apache-2.0
"""limits override: another rate for some prefixes of a limit, one or 100,000 at a time."""

import re
from typing import TYPE_CHECKING, Any, TextIO

import click

from valkyrie.control.cli.document import read
from valkyrie.control.cli.limits import known_limit, path_of
from valkyrie.control.cli.options import LIMIT, RATE, ListedPrefix, examples, prints, with_client
from valkyrie.control.cli.output import Column, Line, Output, Table
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

COLUMNS = (Column("PREFIX"), Column("RATE", right=True), Column("BURST", right=True))


def overrides_table(overrides: list[dict[str, Any]]) -> Table:
    rows = [[entry["prefix"], entry["rate"], entry.get("burst") or ""] for entry in overrides]
    return Table(COLUMNS, rows, title="overrides")


def parse_lines(text: str, name: str) -> tuple[list[dict[str, Any]], list[int]]:
    """Overrides in lines of PREFIX RATE [BURST], and the line number of each.

    What follows a # is a comment. Raises InvalidInput naming file and line.
    """
    overrides: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) not in (2, 3):
            raise InvalidInput(
                f"{line.strip()!r} is not an override",
                "write PREFIX RATE [BURST] on each line, like: 203.0.113.0/24 5000/s 10000",
                where=f"{name} line {number}",
            )
        burst = words[2] if len(words) == 3 else None
        overrides.append({"prefix": words[0], "rate": words[1], "burst": burst})
        numbers.append(number)
    return overrides, numbers


def in_file(error: InvalidInput, name: str, numbers: list[int]) -> InvalidInput:
    """The daemon's error about overrides[i] as one about a line of the file."""
    found = re.search(r"overrides\W*(\d+)", error.where)
    if not found or int(found[1]) >= len(numbers):
        return error
    return InvalidInput(error.what, error.hint, where=f"{name} line {numbers[int(found[1])]}")


def put_file(client: "Client", limit: str, file: TextIO) -> int:
    """Sends a file's overrides in one request, all or nothing; returns how many."""
    overrides, numbers = parse_lines(read(file), file.name)
    if not overrides:
        raise InvalidInput(f"{file.name} has no overrides", "write PREFIX RATE [BURST] on each line")
    try:
        client.put(path_of(limit, "/overrides"), {"overrides": overrides})
    except InvalidInput as error:
        raise in_file(error, file.name, numbers) from error
    return len(overrides)


def check_use(
    prefix: str | None, rate: str | None, burst: str | None, delete: bool, file: TextIO | None
) -> None:
    """Raises UsageError unless the options are one of the three ways to use the command."""
    if file is not None:
        if prefix or rate or burst or delete:
            raise click.UsageError("--file brings prefixes, rates and bursts: give nothing beside it")
    elif prefix is None:
        raise click.UsageError("which prefix? give PREFIX, or --file FILE for many")
    elif delete and (rate or burst):
        raise click.UsageError("--delete removes the override: leave out --rate and --burst")
    elif not delete and rate is None:
        raise click.UsageError(f"which rate for {prefix}? give --rate, or --delete to remove the override")


@click.command(
    epilog=examples(
        "valkyrie-ctl limits override web 203.0.113.0/24 --rate 5000/s",
        "valkyrie-ctl limits override web 203.0.113.0/24 --delete",
        "valkyrie-ctl limits override web --file subscribers.txt",
    )
)
@click.argument("name", type=LIMIT)
@click.argument("prefix", required=False, type=ListedPrefix())
@click.option("--rate", type=RATE, metavar="RATE", help="The rate for this prefix.")
@click.option("--burst", metavar="SIZE", help="Without it, one second's worth.")
@click.option("--delete", is_flag=True, help="Remove the override of PREFIX.")
@click.option(
    "--file",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="Lines of PREFIX RATE [BURST]; - is standard input.",
)
@prints
@with_client
def override(
    client: "Client",
    *,
    name: str,
    prefix: str | None,
    rate: str | None,
    burst: str | None,
    delete: bool,
    file: TextIO | None,
    out: Output,
) -> None:
    """Give some addresses another rate than limit NAME has."""
    check_use(prefix, rate, burst, delete, file)
    with known_limit(client, name):
        if file is not None:
            count = put_file(client, name, file)
            answer: dict[str, Any] = {"limit": name, "overrides": count}
            text = f"{name}: {count} overrides set"
        elif delete:
            client.delete(path_of(name, "/overrides"), prefix=prefix)
            answer = {"limit": name, "prefix": prefix, "rate": None, "burst": None}
            text = f"{name}: {prefix} has the limit's own rate again"
        else:
            answer = {"prefix": prefix, "rate": rate, "burst": burst}
            client.put(path_of(name, "/overrides"), {"overrides": [answer]})
            answer = {"limit": name, **answer}
            text = f"{name}: {prefix} has {rate}"
    out.show(answer, lambda: [Line(text)])
