# SPDX-License-Identifier: Apache-2.0
"""buckets list, show, reset: the state of single keys."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.limits import known_limit
from valkyrie.control.cli.options import LIMIT, examples, prints, with_client
from valkyrie.control.cli.output import Block, Column, Line, Output, Table
from valkyrie.control.cli.segment import segment

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

MOST = 100_000

COLUMNS = (
    Column("LIMIT"),
    Column("KEY"),
    Column("LEFT", right=True),
    Column("BURST", right=True),
    Column("FULL IN", right=True),
)


def row(bucket: dict[str, Any]) -> list[str]:
    from valkyrie.control.units import format_count, format_duration

    full_in = bucket["full_in_ns"]
    return [
        bucket["limit"],
        bucket["key"],
        format_count(bucket["tokens_left"]),
        format_count(bucket["burst"]),
        format_duration(full_in, 2) if full_in else "full",
    ]


def table(buckets: Sequence[dict[str, Any]], empty: str) -> Table:
    return Table(COLUMNS, [row(bucket) for bucket in buckets], empty=empty)


@click.group()
def buckets() -> None:
    """Buckets: what each key of a limit has left."""


@buckets.command("list")
@click.argument("limit", required=False, type=LIMIT)
@click.option("--key", metavar="KEY", help="Only this key, for example an address.")
@click.option("--all", "all_", is_flag=True, help="Full buckets too; without it only those that lack tokens.")
@click.option(
    "--count", type=click.IntRange(1, MOST), default=100, show_default=True, help="At most so many."
)
@prints
@with_client
def list_buckets(
    client: "Client", *, limit: str | None, key: str | None, all_: bool, count: int, out: Output
) -> None:
    """Buckets of all limits, or of LIMIT; the emptiest first."""
    query: dict[str, object] = {"limit": limit, "key": key, "live": 0 if all_ else 1, "count": count}
    if limit is None:
        answer = client.get("/v1/buckets", **query)
    else:
        with known_limit(client, limit):
            answer = client.get("/v1/buckets", **query)

    def view() -> list[Block]:
        return [table(answer["buckets"], "no buckets: every key has all its tokens")]

    out.show(answer, view)


@buckets.command(epilog=examples("valkyrie-ctl buckets show web 198.51.100.7"))
@click.argument("limit", type=LIMIT)
@click.argument("key", required=False)
@prints
@with_client
def show(client: "Client", *, limit: str, key: str | None, out: Output) -> None:
    """The bucket of KEY under LIMIT; a limit with the key global needs no KEY."""
    with known_limit(client, limit):
        answer = client.get(f"/v1/buckets/{segment(limit)}", key=key)

    def view() -> list[Block]:
        return [table([answer], "")]

    out.show(answer, view)


@buckets.command()
@click.argument("limit", type=LIMIT)
@click.argument("key", required=False)
@click.option("--all", "all_", is_flag=True, help="Every bucket of LIMIT.")
@prints
@with_client
def reset(client: "Client", *, limit: str, key: str | None, all_: bool, out: Output) -> None:
    """Fill the bucket of KEY under LIMIT again, or with --all every bucket of it."""
    if all_ == (key is not None):
        raise click.UsageError("which bucket? give a KEY or --all, not both")
    with known_limit(client, limit):
        answer = client.post("/v1/buckets/reset", {"limit": limit, "key": key})
    count = answer["reset"]
    text = f"{limit}: {count} bucket{'' if count == 1 else 's'} full again"
    out.show(answer, lambda: [Line(text)])
