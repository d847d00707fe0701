# SPDX-License-Identifier: Apache-2.0
"""Calls to the kernel's table from Python: one at a time, in batches, and beside a bare test run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import uvloop

from bench.harness import ratio
from bench.rows import Row, row
from bench.times import Times, quantile
from support.calls import Calls, served
from support.policy import limit
from valkyrie.adapters.yggdrasil.adapter import YggdrasilAdapter
from valkyrie.control.dataplane import call
from valkyrie.control.dataplane.call_entry import entry_of
from valkyrie.control.dataplane.keyname import opaque
from valkyrie.control.key import ID

SETS = 1 << 17
ROUNDS, CALLS, VALUE_CALLS, BATCHES = 5, 20_000, 5000, 200
BATCH = 256
VALUE = b"v" * 100
P50_BUDGET, P99_BUDGET, BATCH_BUDGET, VALUE_BUDGET = "<= 6", "<= 20", ">= 1000000", "<= 50"
KEYS = [f"user {number}" for number in range(BATCH)]


def run() -> Iterator[Row]:
    """With a table of a million places."""
    with served("bench", SETS) as calls:
        calls.publish([limit("m", rate="1000000/s", key="id")])
        yield from uvloop.run(_measure(calls))


async def _measure(calls: Calls) -> list[Row]:
    taken = {name: Times() for name in ("bare", "again", "new", "batch", "set", "get")}
    bare = bare_run(calls, "m")
    async with calls.adapter() as store:
        for turn in range(ROUNDS):
            await taken["bare"].calls(CALLS, bare)
            await taken["again"].calls(CALLS, lambda i: store.try_consume(KEYS[i & 15], limit="m"))
            await taken["new"].calls(CALLS, partial(_new, store, turn * CALLS))
            await taken["batch"].calls(BATCHES, lambda _: store.consume_batch(KEYS, limit="m"))
            await taken["set"].calls(VALUE_CALLS, lambda i: store.set(KEYS[i & 15], VALUE))
            await taken["get"].calls(VALUE_CALLS, lambda i: store.get(KEYS[i & 15]))
    one, per = taken["again"], taken["bare"]
    medians = [[quantile(each, 50) for each in times.rounds] for times in (one, per)]
    return [
        row("kernel try_consume, one at a time, p50", one.us(50), "us", P50_BUDGET),
        row("kernel try_consume, one at a time, p99", one.us(99), "us", P99_BUDGET),
        row("kernel try_consume, a key never seen, p50", taken["new"].us(50), "us"),
        row("kernel try_consume, a key never seen, p99", taken["new"].us(99), "us"),
        row("bare test run of the same program, p50", per.us(50), "us"),
        row("bare test run of the same program, p99", per.us(99), "us"),
        row("kernel try_consume / bare test run, p50", ratio(*medians), "x"),
        row(
            f"kernel try_consume, batches of {BATCH}",
            BATCH / taken["batch"].us(50) * 1e6,
            "keys/s",
            BATCH_BUDGET,
        ),
        row("kernel set, p99", taken["set"].us(99), "us", VALUE_BUDGET),
        row("kernel get, p99", taken["get"].us(99), "us", VALUE_BUDGET),
    ]


async def _new(store: YggdrasilAdapter, first: int, number: int) -> None:
    """A key that was never seen."""
    await store.try_consume(f"new {first + number}", limit="m")


def bare_run(calls: Calls, name: str) -> Callable[[int], Awaitable[object]]:
    """The system call alone, on a request that lies there already."""
    uid = calls.book.limits[name].uid
    position = calls.caller.position(uid)
    assert position is not None
    request = call.declared(uid, position) + entry_of(opaque(KEYS[0]), ID, 1)
    run, length = calls.caller._opened(), len(request)
    run.packet[:length] = request

    async def once(_: int) -> None:
        run.packet[call.POINT_AT] = 0
        run.go(length)

    return once
