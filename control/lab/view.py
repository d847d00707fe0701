# SPDX-License-Identifier: Apache-2.0
"""The demo on the screen: a table that refreshes, or plain lines where there is no terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from valkyrie.control.lab.report import HEADINGS, Row

REFRESH_S = 0.5
PLAIN_EVERY = 4  # of the refreshes, where lines stay


@dataclass(frozen=True)
class Pace:
    """A stream now: packets a second."""

    name: str
    told: str
    offered: float
    passed: float

    @property
    def dropped(self) -> float:
        return max(0.0, self.offered - self.passed)


def _live_table(title: str, paces: Sequence[Pace]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("LIMIT")
    table.add_column("WHAT")
    for heading in ("OFFERED/s", "PASSED/s", "DROPPED/s"):
        table.add_column(heading, justify="right", min_width=9)
    for pace in paces:
        dropped = f"[red]{pace.dropped:,.0f}" if pace.dropped > 0.01 * pace.offered else "0"
        table.add_row(pace.name, pace.told, f"{pace.offered:,.0f}", f"[green]{pace.passed:,.0f}", dropped)
    return table


def _plain(title: str, paces: Sequence[Pace]) -> str:
    told = (f"{pace.name} {pace.offered:,.0f}/s -> {pace.passed:,.0f}/s" for pace in paces)
    return f"{title}: {', '.join(told)}"


@contextmanager
def live(console: Console) -> Iterator[Callable[[str, Sequence[Pace]], None]]:
    """A function that shows a title and the streams as they are now."""
    if not console.is_terminal:
        calls = 0

        def tell(title: str, paces: Sequence[Pace]) -> None:
            nonlocal calls
            calls += 1
            if calls % PLAIN_EVERY == 0:
                console.print(_plain(title, paces), soft_wrap=True, highlight=False)

        yield tell
        return
    with Live(console=console, auto_refresh=False) as screen:
        yield lambda title, paces: screen.update(_live_table(title, paces), refresh=True)


def final(console: Console, rows: Sequence[Row]) -> None:
    """The closing table."""
    table = Table(title="What passed, counted behind XDP, against what must", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("LIMIT", "") else "right")
    for row in rows:
        table.add_row(*row.cells(), style="" if row.ok else "bold red")
    console.print(table)
