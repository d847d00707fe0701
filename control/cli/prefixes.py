# SPDX-License-Identifier: Apache-2.0
"""exempt and ban: prefixes that always pass, prefixes that never do."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import DURATION, ListedPrefix, examples, prints, with_client
from valkyrie.control.cli.output import Block, Column, Line, Output, Table
from valkyrie.control.cli.suggest import did_you_mean
from valkyrie.control.errors import NotFound

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

COLUMNS = (Column("PREFIX"), Column("ENDS IN", right=True), Column("NOTE"))
MADE_BY_LIMIT = "by a limit"
BANNED = ListedPrefix("/v1/ban", "ban")
EXEMPTED = ListedPrefix("/v1/exempt", "exempt")


def ends_in(until: float | None, now: float) -> str:
    """What is left until a wall clock time in seconds."""
    from valkyrie.control.units import format_duration

    return "never" if until is None else format_duration(max(0, round(until - now)) * 1_000_000_000)


def note_of(entry: dict[str, Any]) -> str:
    return MADE_BY_LIMIT if entry.get("by") == "limit" else entry.get("note") or ""


def table(entries: Sequence[dict[str, Any]], now: float, empty: str) -> Table:
    rows = [[entry["prefix"], ends_in(entry.get("until"), now), note_of(entry)] for entry in entries]
    return Table(COLUMNS, rows, empty=empty)


def listing(client: "Client", kind: str, empty: str, out: Output) -> None:
    answer = client.get(f"/v1/{kind}")

    def view() -> list[Block]:
        return [table(answer[kind], time.time(), empty)]

    out.show(answer, view)


def add(client: "Client", kind: str, body: dict[str, Any], said: str, out: Output) -> None:
    answer = client.put(f"/v1/{kind}", body)
    lasting = f" for {body['for']}" if body["for"] else ""
    out.show(answer, lambda: [Line(f"{answer['prefix']}: {said}{lasting}")])


def remove(client: "Client", kind: str, prefix: str, said: str, out: Output) -> None:
    try:
        answer = client.delete(f"/v1/{kind}", prefix=prefix)
    except NotFound as error:
        known = [entry["prefix"] for entry in client.get(f"/v1/{kind}")[kind]]
        meant = did_you_mean(prefix, known)
        raise NotFound(error.what, meant or error.hint or f"valkyrie-ctl {kind} list") from error
    out.show(answer, lambda: [Line(f"{prefix}: {said}")])


@click.group()
def exempt() -> None:
    """Prefixes whose packets always pass, before any limit."""


@click.group()
def ban() -> None:
    """Prefixes whose packets never pass."""


for_option = click.option(
    "--for", "for_", type=DURATION, metavar="TIME", help="Like 10m; without it, until removed."
)
note_option = click.option("--note", default="", help="Why, for those who read the list.")


@exempt.command("add")
@click.argument("prefix")
@for_option
@note_option
@prints
@with_client
def exempt_add(client: "Client", *, prefix: str, for_: str | None, note: str, out: Output) -> None:
    """Let every packet from PREFIX pass."""
    add(client, "exempt", {"prefix": prefix, "for": for_, "note": note}, "always passes", out)


@exempt.command("list")
@prints
@with_client
def exempt_list(client: "Client", out: Output) -> None:
    """All exempt prefixes."""
    listing(client, "exempt", "no exempt prefixes", out)


@exempt.command("remove")
@click.argument("prefix", type=EXEMPTED)
@prints
@with_client
def exempt_remove(client: "Client", *, prefix: str, out: Output) -> None:
    """Subject PREFIX to limits again."""
    remove(client, "exempt", prefix, "no longer exempt", out)


@ban.command("add", epilog=examples("valkyrie-ctl ban add 203.0.113.0/24 --for 10m"))
@click.argument("prefix")
@for_option
@note_option
@prints
@with_client
def ban_add(client: "Client", *, prefix: str, for_: str | None, note: str, out: Output) -> None:
    """Drop every packet from PREFIX, except protected and exempt ones."""
    add(client, "ban", {"prefix": prefix, "for": for_, "note": note}, "banned", out)


@ban.command("list")
@prints
@with_client
def ban_list(client: "Client", out: Output) -> None:
    """All banned prefixes, those banned by limits included (of these the 1,000 longest)."""
    listing(client, "ban", "no bans", out)


@ban.command("remove")
@click.argument("prefix", type=BANNED)
@prints
@with_client
def ban_remove(client: "Client", *, prefix: str, out: Output) -> None:
    """Lift the ban of PREFIX, whether a person made it or a limit."""
    remove(client, "ban", prefix, "no longer banned", out)
