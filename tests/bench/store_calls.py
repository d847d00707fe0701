# SPDX-License-Identifier: Apache-2.0
"""Redis and Valkey on loopback beside this process: calls one at a time, and many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from statistics import median
from typing import Any

import uvloop
from redis import asyncio as library

from bench.alone import alone
from bench.harness import ratio
from bench.rows import Row, row
from bench.times import Times, quantile
from support.resp import APPLIANCE, adapter_for
from support.servers import Kind, Server, server
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import bucket_key, bucket_of
from valkyrie.adapters.resp.adapter import RespAdapter
from valkyrie.adapters.resp.consume import _pairs
from valkyrie.adapters.resp.scripts import TAKE

LIMIT = Limit.of("web", "1/m", "1000000")
KINDS: tuple[Kind, ...] = ("redis", "valkey")
KEYS = [f"user {number}" for number in range(1000)]
VALUE = b"v" * 100
PATIENT_MS = 20_000  # no call fails of what else the machine does
ROUNDS, CALLS, PLAIN_CALLS = 7, 3000, 1500  # each way
TASKS, EACH, LIBRARY_EACH = 100, 200, 60
CONNECTIONS, CALLERS, HELD_S = 128, 256, 2.0
TRY_BUDGET, PLAIN_BUDGET, RATE_BUDGET, LIBRARY_BUDGET = "<= 1000", "<= 2000", ">= 10000", ">= 4"


def one_at_a_time() -> Iterator[Row]:
    """`try_consume`, `get` and `set`, over TCP and a Unix socket."""
    with alone(), ExitStack() as stack:
        servers = [stack.enter_context(server(kind)) for kind in KINDS]
        yield from uvloop.run(_ways(servers))


def together() -> Iterator[Row]:
    """A hundred tasks on one connection; more tasks than connections."""
    for kind in KINDS:
        with alone(), server(kind) as made:
            yield from uvloop.run(_coalesced(made))
            yield from uvloop.run(_held(made))


async def _ways(servers: list[Server]) -> list[Row]:
    async with AsyncExitStack() as stack:
        ways = {
            f"{made.kind}, {way}": await stack.enter_async_context(_store(made, url))
            for made in servers
            for way, url in (("TCP", made.url), ("Unix socket", made.unix_url))
        }
        taken = {name: {call: Times() for call in ("try_consume", "set", "get")} for name in ways}
        for _ in range(ROUNDS):
            for name, store in ways.items():
                for call, times in taken[name].items():
                    count = CALLS if call == "try_consume" else PLAIN_CALLS
                    await times.calls(count, _call(store, call))
    rows = []
    for name, kinds in taken.items():
        for call, times in kinds.items():
            rows.append(row(f"{call}, one at a time, {name}, p50", times.us(50), "us"))
            budget = TRY_BUDGET if call == "try_consume" else PLAIN_BUDGET
            rows.append(row(f"{call}, one at a time, {name}, p99", times.us(99), "us", budget))
    return rows


def _store(made: Server, url: str, **options: Any) -> RespAdapter:
    return adapter_for(made.kind, url, timeout_ms=PATIENT_MS, **options)


def _call(store: RespAdapter, name: str) -> Callable[[int], Awaitable[object]]:
    def key(number: int) -> str:
        return KEYS[number % len(KEYS)]

    calls: dict[str, Callable[[int], Awaitable[object]]] = {
        "try_consume": lambda number: store.try_consume(key(number), limit=LIMIT),
        "set": lambda number: store.set(key(number), VALUE),
        "get": lambda number: store.get(key(number)),
    }
    return calls[name]


async def _coalesced(made: Server) -> list[Row]:
    """Our calls and the library's take turns."""
    ours: list[float] = []
    theirs: list[float] = []
    one: list[float] = []
    store = _store(made, made.url, pool_size=1)
    async with store, _library(made, TASKS) as many, _library(made, 1) as single:
        for _ in range(ROUNDS + 1):  # the first connects
            ours.append(await _rate(EACH, _call(store, "try_consume")))
            theirs.append(await _rate(LIBRARY_EACH, _evalsha(many)))
            one.append(await _rate(LIBRARY_EACH, _evalsha(single)))
    name = f"try_consume, {TASKS} tasks, {made.kind}"
    return [
        row(f"{name}, coalesced on one connection", median(ours[1:]), "ops/s", RATE_BUDGET),
        row(
            f"{name}: coalesced / the library's calls, one connection",
            ratio(ours[1:], one[1:]),
            "x",
            LIBRARY_BUDGET,
        ),
        row(
            f"{name}: coalesced / the library's calls, {TASKS} connections", ratio(ours[1:], theirs[1:]), "x"
        ),
    ]


def _library(made: Server, connections: int) -> Any:
    """redis-py as people use it: a pool whose callers wait in line, a command a call."""
    pool: Any = library.BlockingConnectionPool(port=made.port, max_connections=connections, timeout=60)
    return library.Redis.from_pool(pool)


def _evalsha(client: Any) -> Callable[[int], Awaitable[object]]:
    asked = _pairs(LIMIT.cost, 1)

    async def call(number: int) -> object:
        key = bucket_key(APPLIANCE, bucket_of(LIMIT, KEYS[number % len(KEYS)]))
        return await client.evalsha(TAKE.sha, 1, key, asked)

    return call


async def _rate(each: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Calls a second of TASKS tasks."""

    async def task(first: int) -> None:
        for number in range(each):
            await call(first * 7 + number)

    began = time.perf_counter()
    await asyncio.gather(*map(task, range(TASKS)))
    return TASKS * each / (time.perf_counter() - began)


async def _held(made: Server) -> list[Row]:
    """Without coalescing each call under way has a connection, and callers wait in line for it."""
    taken: list[list[int]] = [[] for _ in range(CALLERS)]
    async with _store(made, made.url, pool_size=CONNECTIONS, coalesce=False) as store:
        tries = _call(store, "try_consume")
        await asyncio.gather(*(tries(number) for number in range(CALLERS)))
        end = time.perf_counter() + HELD_S
        await asyncio.gather(
            *(_until(end, partial(tries, number), taken[number]) for number in range(CALLERS))
        )
        held = store.stats().connections
        errors = sum(one.errors for one in store.stats().operations.values())
    counts = [len(one) for one in taken]
    whole = [one for caller in taken for one in caller]
    name = f"{CALLERS} callers on {CONNECTIONS} connections, {made.kind}"
    return [
        row(f"{name}: connections held", held, "", ">= 100"),
        row(f"{name}: errors", errors, "", "<= 0"),
        row(f"{name}: calls of the caller with fewest / with most", min(counts) / max(counts), "x", ">= 0.8"),
        row(f"{name}: p99 / p50", quantile(whole, 99) / quantile(whole, 50), "x"),
        row(f"{name}: calls", sum(counts) / HELD_S, "ops/s"),
    ]


async def _until(end: float, call: Callable[[], Awaitable[object]], taken: list[int]) -> None:
    while time.perf_counter() < end:
        began = time.perf_counter_ns()
        await call()
        taken.append(time.perf_counter_ns() - began)
