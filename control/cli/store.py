# SPDX-License-Identifier: Apache-2.0
"""store status, check, consume: the chain of stores, tried out and looked at."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.exits import CHECK_FAILED
from valkyrie.control.cli.options import LIMIT, RATE, examples, prints, with_client
from valkyrie.control.cli.output import Block, Column, Facts, Line, Output, Table
from valkyrie.control.cli.store_migrate import migrate
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

MAX_TOKENS = (1 << 31) - 1
STORES = (
    Column("STORE"),
    Column("STATE", styled=True),
    Column("PROBE", right=True),
    Column("CALLS", right=True),
    Column("ERRORS", right=True),
    Column("P50", right=True),
    Column("P99", right=True),
    Column("BREAKER", right=True),
    Column("DETAIL"),
)
STEPS = (Column("STORE"), Column("STEP"), Column("RESULT", styled=True), Column("WHAT"))


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms"


def store_row(one: Mapping[str, Any]) -> list[str]:
    """A store; quantiles are those of try_consume, the calls and errors of all operations."""
    operations = one["operations"]
    taken = operations.get("try_consume")
    return [
        one["name"],
        one["state"],
        milliseconds(one["latency_ms"]),
        str(sum(operation["count"] for operation in operations.values())),
        str(sum(operation["errors"] for operation in operations.values())),
        milliseconds(taken["p50_ms"]) if taken else "-",
        milliseconds(taken["p99_ms"]) if taken else "-",
        str(one["extra"].get("breaker_opened", "-")),
        waiting(one) + one["detail"],
    ]


def waiting(one: Mapping[str, Any]) -> str:
    if one["state"] != "well" or one["well_s"] is None:
        return ""
    return f"used again after {max(0.0, one['hold_s'] - one['well_s']):.0f} s of health; "


def facts(answer: Mapping[str, Any]) -> Facts:
    pairs = [
        ("in use", answer["in_use"] or "none"),
        ("chain", " -> ".join(answer["chain"])),
        ("name", answer["name"]),
        ("when all fail", answer["when_all_fail"]),
    ]
    if "switch_overs" in answer:
        switches = f"{answer['switch_overs']} over, {answer['fail_backs']} back"
        pairs.append(("switches", f"{switches}, {answer['all_aways']} with every store away"))
        pairs.append(("decided alone", f"{answer['degraded']} calls of try_consume"))
        pairs.append(("carried", f"{answer['carried']} buckets, {answer['forgotten']} forgotten"))
    pairs.append(("sync", sync_text(answer.get("sync") or {})))
    if answer["problem"]:
        pairs.append(("problem", answer["problem"]))
    return Facts(pairs)


def sync_text(sync: Mapping[str, Any]) -> str:
    if sync.get("state", "off") == "off":
        return "off"
    text = f"{sync['state']}, {sync['store']} as {sync['name']}, {sync['lag_s']:.1f} s behind"
    return f"{text}: {sync['problem']}" if sync.get("problem") else text


def status_view(answer: Mapping[str, Any]) -> list[Block]:
    empty = "no store has started"
    return [facts(answer), Table(STORES, [store_row(one) for one in answer["stores"]], empty=empty)]


def check_view(answer: Mapping[str, Any]) -> list[Block]:
    rows = [
        [one["store"], step["name"], step["state"], step["what"]]
        for one in answer["stores"]
        for step in one["steps"]
    ]
    hints: list[Block] = [
        Line(f"{one['store']}: {step['hint']}", "yellow")
        for one in answer["stores"]
        for step in one["steps"]
        if step["hint"]
    ]
    return [Table(STEPS, rows), *hints]


def decision_text(answer: Mapping[str, Any], n: int) -> str:
    """The decision in a sentence."""
    by = f"{answer['store']}, {answer['took_ms']:.2f} ms" + (", degraded" if answer["degraded"] else "")
    left = f"{answer['remaining']} left, full in {answer['reset_after']:.3f} s"
    if answer["allowed"]:
        return f"allowed ({by}): {left}"
    if answer["retry_after"] is None:
        return f"refused ({by}): {n} tokens are more than the burst; {left}"
    return f"refused ({by}): again in {answer['retry_after']:.3f} s; {left}"


@click.group()
def store() -> None:
    """Stores: what applications' buckets are kept in, and what takes over when one is away."""


store.add_command(migrate)


@store.command()
@prints
@with_client
def status(client: "Client", out: Output) -> None:
    """Which store is in use, how each of the chain does, how far the sync is behind.

    These are the daemon's own connections: an application's process has its own and may see another picture.
    """
    answer = client.get("/v1/store")
    out.show(answer, lambda: status_view(answer))


@store.command()
@prints
@with_client
@click.pass_context
def check(ctx: click.Context, client: "Client", *, out: Output) -> None:
    """Try each store of the chain: connect, log in, decide, compare clocks; say what to mend."""
    answer = client.get("/v1/store/check")
    out.show(answer, lambda: check_view(answer))
    if not all(one["ok"] for one in answer["stores"]):
        ctx.exit(CHECK_FAILED)


@store.command(
    epilog=examples(
        "valkyrie-ctl store consume 203.0.113.9 --limit web",
        "valkyrie-ctl store consume user-4711 --rate 10/m --burst 3 -n 2",
    )
)
@click.argument("key")
@click.option("--limit", type=LIMIT, help="A limit by name; packets take from the same bucket.")
@click.option("--rate", type=RATE, help="A limit of your own, as 10/m.")
@click.option("--burst", metavar="TEXT", help="With --rate; without it one second's worth.")
@click.option(
    "-n", "tokens", type=click.IntRange(0, MAX_TOKENS), default=1, show_default=True,
    help="So many tokens; 0 looks without taking.",
)  # fmt: skip
@prints
@with_client
def consume(
    client: "Client", *, key: str, limit: str | None, rate: str | None, burst: str | None, tokens: int,
    out: Output,
) -> None:  # fmt: skip
    """Take tokens of KEY's bucket as an application would, and show the answer."""
    if (limit is None) == (rate is None):
        raise InvalidInput("which limit?", "give --limit NAME, or --rate and perhaps --burst")
    body = {"key": key, "n": tokens, "limit": limit, "rate": rate, "burst": burst}
    answer = client.post("/v1/store/consume", body)
    out.show(answer, lambda: [Line(decision_text(answer, tokens))])
