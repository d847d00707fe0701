# SPDX-License-Identifier: Apache-2.0
"""limits set, list, show, delete."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.group import Commands
from valkyrie.control.cli.options import DURATION, KEY, LIMIT, RATE, examples, prints, with_client
from valkyrie.control.cli.output import Block, Column, Facts, Line, Output, Table
from valkyrie.control.cli.segment import segment
from valkyrie.control.cli.suggest import did_you_mean
from valkyrie.control.errors import NotFound

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

HERE = "valkyrie.control.cli"
TABLE = {
    "set": f"{HERE}.limits:set_limit",
    "list": f"{HERE}.limits:list_limits",
    "show": f"{HERE}.limits:show",
    "delete": f"{HERE}.limits:delete",
    "override": f"{HERE}.override:override",
    "apply": f"{HERE}.policy:apply",
    "export": f"{HERE}.policy:export",
    "explain": f"{HERE}.explain:explain",
    "suggest": f"{HERE}.observe:suggest",
    "compare": f"{HERE}.observe:compare",
}

LONGEST_MATCH = 80
COLUMNS = (
    Column("NAME"),
    Column("MATCH"),
    Column("KEY"),
    Column("RATE", right=True),
    Column("BURST", right=True),
    Column("ACTION", styled=True),
    Column("MATCHED", right=True),
    Column("PASSED", right=True),
    Column("DROPPED", right=True),
)


def path_of(name: str, verb: str = "") -> str:
    return f"/v1/limits/{segment(name)}{verb}"


@contextmanager
def known_limit(client: "Client", name: str) -> Iterator[None]:
    """Turns "no such limit" into one that names the limit that was probably meant."""
    try:
        yield
    except NotFound as error:
        names = [limit["name"] for limit in client.get("/v1/limits")["limits"]]
        meant = "" if name in names else did_you_mean(name, names)
        raise NotFound(error.what, meant or error.hint or "valkyrie-ctl limits list") from error


def action_of(limit: dict[str, Any]) -> str:
    """The action in words: drop, shadow, ban 10m."""
    return f"ban {limit['ban_for']}" if limit["action"] == "ban" else str(limit["action"])


def match_of(limit: dict[str, Any]) -> str:
    if limit["key"] == "id":
        return "no packet, only calls"
    return limit["match"] or "everything"


def short_match_of(limit: dict[str, Any]) -> str:
    """The same, cut where a list of thousands of prefixes would hide all else."""
    text = match_of(limit)
    return text if len(text) <= LONGEST_MATCH else f"{text[: LONGEST_MATCH - 3]}..."


def sentence(limit: dict[str, Any]) -> str:
    """A limit in one line."""
    burst = f", burst {limit['burst']}" if limit.get("burst") else ""
    return f"{limit['rate']} per {limit['key']}{burst}, {action_of(limit)}; matches {short_match_of(limit)}"


def row(limit: dict[str, Any]) -> list[str]:
    from valkyrie.control.units import format_count

    counters = limit["counters"]
    dropped = counters["shadow_dropped"] if limit["action"] == "shadow" else counters["dropped"]
    return [
        limit["name"],
        short_match_of(limit),
        limit["key"],
        limit["rate"],
        limit["burst"] or "",
        action_of(limit),
        *(format_count(count) for count in (counters["matched"], counters["passed"], dropped)),
    ]


def details(limit: dict[str, Any]) -> Facts:
    from valkyrie.control.units import format_bytes, format_count

    counters = limit["counters"]
    pairs = [
        ("name", limit["name"]),
        ("match", match_of(limit)),
        ("key", limit["key"]),
        ("rate", limit["rate"]),
        ("burst", limit["burst"] or "one second's worth"),
        ("action", action_of(limit)),
        ("measures", limit["measure"]),
        ("overrides", format_count(limit["overrides"])),
    ]
    for name, value in counters.items():
        text = format_bytes(value) if name.endswith("_bytes") else format_count(value)
        pairs.append((name.replace("_", " "), text))
    return Facts(pairs)


@click.group(cls=Commands, table=TABLE)
def limits() -> None:
    """Limits: which packets, how many, and what happens to the rest."""


@click.command(
    "set",
    epilog=examples(
        "valkyrie-ctl limits set web --match 'proto tcp dport 80,443' --key src/32 --rate 1000/s",
        "valkyrie-ctl limits set dns-amp --match 'proto udp sport 53' --key global --rate 50mbit/s --shadow",
        "valkyrie-ctl limits set ssh --match 'dport 22 syn' --key src --rate 6/min --burst 10 --ban 10m",
    ),
)
@click.argument("name", type=LIMIT)
@click.option("--match", default="", metavar="MATCH", help="Which packets; without it, all of them.")
@click.option("--key", required=True, type=KEY, metavar="KEY", help="Who gets a bucket, as src or global.")
@click.option("--rate", required=True, type=RATE, metavar="RATE", help="Like 1000/s, 50mbit/s or 10/h.")
@click.option("--burst", metavar="SIZE", help="Like 2000 (packets) or 64KB; without it, one second's worth.")
@click.option("--shadow", is_flag=True, help="Only count what would be dropped.")
@click.option(
    "--ban", "ban_for", type=DURATION, metavar="TIME", help="Ban a source that exceeds, for this time."
)
@click.option(
    "--measure",
    type=click.Choice(["packets", "ip", "frame"]),
    help="What a token is: a packet, a byte of the IP packet, or a byte of the frame.",
)
@prints
@with_client
def set_limit(
    client: "Client",
    *,
    name: str,
    match: str,
    key: str,
    rate: str,
    burst: str | None,
    shadow: bool,
    ban_for: str | None,
    measure: str | None,
    out: Output,
) -> None:
    """Create limit NAME, or replace it as a whole."""
    if shadow and ban_for:
        raise click.UsageError("--shadow only counts and --ban bans: give one of them")
    action = "shadow" if shadow else "ban" if ban_for else "drop"
    body: dict[str, Any] = {"match": match, "key": key, "rate": rate, "burst": burst, "action": action}
    body["ban_for"] = ban_for
    if measure:
        body["measure"] = measure
    answer = client.put(path_of(name), body)
    out.show(answer, lambda: [Line(f"{name}: {sentence(answer)}")])


@click.command("list")
@prints
@with_client
def list_limits(client: "Client", out: Output) -> None:
    """All limits with their counters."""
    answer = client.get("/v1/limits")

    def view() -> list[Block]:
        rows = [row(limit) for limit in answer["limits"]]
        return [Table(COLUMNS, rows, empty="no limits: every packet passes")]

    out.show(answer, view)


@click.command()
@click.argument("name", type=LIMIT)
@prints
@with_client
def show(client: "Client", *, name: str, out: Output) -> None:
    """One limit, its counters and its overrides."""
    with known_limit(client, name):
        limit = client.get(path_of(name))
        overrides = client.get(path_of(name, "/overrides"))["overrides"]

    def view() -> list[Block]:
        from valkyrie.control.cli.override import overrides_table

        return [details(limit), *([overrides_table(overrides)] if overrides else [])]

    out.show({**limit, "overrides": overrides}, view)


@click.command()
@click.argument("name", type=LIMIT)
@prints
@with_client
def delete(client: "Client", *, name: str, out: Output) -> None:
    """Delete limit NAME with its overrides; its packets pass from now on."""
    with known_limit(client, name):
        answer = client.delete(path_of(name))
    out.show(answer, lambda: [Line(f"{name}: deleted")])
