# SPDX-License-Identifier: Apache-2.0
"""top: what limits and top talkers do right now."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import prints, with_client
from valkyrie.control.cli.output import Column, Line, Output, Table, on_terminal, print_blocks, rich_table
from valkyrie.control.errors import Unavailable

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

REFRESH_SECONDS = 0.5
LINES_SECONDS = 1.0

LIMITS = (
    Column("LIMIT"),
    Column("ACTION", styled=True),
    Column("MATCHED/S", right=True),
    Column("PASSED/S", right=True),
    Column("DROPPED/S", right=True),
)
# Of talkers the daemon has samples: their counts are estimates.
TALKERS = (
    Column("TALKER"),
    Column("LIMIT"),
    Column("~DROPPED", right=True),
    Column("~WOULD DROP", right=True),
)


def limit_row(limit: dict[str, Any]) -> list[str]:
    from valkyrie.control.units import format_count

    rates = (limit["matched_per_s"], limit["passed_per_s"], limit["dropped_per_s"])
    return [limit["name"], limit["action"], *(format_count(round(rate)) for rate in rates)]


def view(answer: dict[str, Any]) -> list[Table]:
    from valkyrie.control.units import format_count

    limits = [limit_row(limit) for limit in answer["limits"]]
    talkers = [
        [one["key"], one["limit"], format_count(one["dropped"]), format_count(one["would_drop"])]
        for one in answer["talkers"]
    ]
    return [
        Table(LIMITS, limits, empty="no limits: every packet passes"),
        Table(TALKERS, talkers, empty="nobody is being dropped"),
    ]


def verdict(talker: dict[str, Any]) -> str:
    """What happened to a talker's packets, or under a shadow limit would have."""
    if talker["would_drop"]:
        return f"would drop ~{talker['would_drop']}"
    return f"dropped ~{talker['dropped']}"


def lines(answer: dict[str, Any], clock: str) -> list[Line]:
    """A sample for a log: a line for each limit, then one for each talker."""
    texts = [
        f"{clock}  {name}  matched {matched}/s  passed {passed}/s  dropped {dropped}/s"
        for name, _, matched, passed, dropped in map(limit_row, answer["limits"])
    ]
    texts += [f"{clock}  {one['limit']}  {one['key']}  {verdict(one)}" for one in answer["talkers"]]
    return [Line(text) for text in texts or [f"{clock}  no limits"]]


def live(sample: Callable[[], Sequence[Table]]) -> None:
    """Redraws the sample twice a second until Ctrl-C; keeps the last one while the daemon is away."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False) as screen:
        drawn: list[Any] = []
        while True:
            try:
                drawn = [rich_table(table) if table.rows else Text(table.empty) for table in sample()]
                screen.update(Group(*drawn), refresh=True)
            except Unavailable as error:
                if not drawn:
                    raise
                screen.update(Group(*drawn, Text(f"{error.what}; waiting", style="yellow")), refresh=True)
            time.sleep(REFRESH_SECONDS)


@click.command()
@click.option("--once", is_flag=True, help="Print one sample and end.")
@click.option(
    "--count", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many top talkers."
)
@click.option("--limit", metavar="NAME", help="Top talkers of this limit (or reason, as ban) alone.")
@prints
@with_client
def top(client: "Client", *, once: bool, count: int, limit: str | None, out: Output) -> None:
    """Rates of the limits and who is dropped most, twice a second, until Ctrl-C.

    Without a terminal a line for each limit and talker every second.
    """

    def sample() -> dict[str, Any]:
        answer: dict[str, Any] = client.get("/v1/top", count=count, limit=limit)
        return answer

    sample()  # rates are those since the sample before, which may be an hour ago
    time.sleep(REFRESH_SECONDS)
    if once:
        answer = sample()
        out.show(answer, lambda: view(answer))
    elif out.kind == "table" and on_terminal():
        live(lambda: view(sample()))
    else:
        repeat(sample, out)


def repeat(sample: Callable[[], dict[str, Any]], out: Output) -> None:
    """Prints a sample a second until Ctrl-C."""
    while True:
        answer = sample()
        if out.kind == "table":
            print_blocks(lines(answer, time.strftime("%H:%M:%S")))
            sys.stdout.flush()
        else:
            out.item(answer, lambda: Line(""))
        time.sleep(LINES_SECONDS)
