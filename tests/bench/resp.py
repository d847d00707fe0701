# SPDX-License-Identifier: Apache-2.0
"""Redis and Valkey on loopback beside this process: calls one at a time and coalesced, state in bulk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvloop
from redis import asyncio as library

from bench.rows import Row, row
from support.connected import connected
from support.resp import client_for
from support.servers import Kind, Server, server
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import bucket_key
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.coalesce import Coalescer
from valkyrie.adapters.resp.consume import Consumer, Taking, _pairs
from valkyrie.adapters.resp.durable import RespDurable
from valkyrie.adapters.resp.scripts import TAKE

COST = Limit.of("web", "1/m", "1000000").cost
HOUR = 3600 * 64 * 10**9  # in units
ONE_AT_A_TIME = 10_000
TASKS, EACH = 100, 500
LIBRARY_EACH = 100
CHANGED, ALL = 100_000, 1_000_000
BUCKETS = 1000
KINDS: tuple[Kind, ...] = ("redis", "valkey")


def calls() -> Iterator[Row]:
    """`try_consume`, one at a time and from a hundred tasks."""
    for kind in KINDS:
        with server(kind) as made:
            yield from _collect(_calls(made))


def bulk() -> Iterator[Row]:
    """What sync writes, and what a restore reads."""
    for kind in KINDS:
        with server(kind) as made:
            yield from _collect(_bulk(made))


def _collect(rows: AsyncIterator[Row]) -> list[Row]:
    async def everything() -> list[Row]:
        return [entry async for entry in rows]

    return uvloop.run(everything())


async def _calls(made: Server) -> AsyncIterator[Row]:
    for way, url in (("TCP", made.url), ("Unix socket", made.unix_url)):
        async with client_for(made.kind, url, timeout_ms=10_000) as client:
            times = await _one_at_a_time(client)
            name = f"{made.kind} try_consume, one at a time, {way}"
            yield row(f"{name}, p50", times[len(times) // 2] * 1e6, "us")
            yield row(f"{name}, p99", times[len(times) * 99 // 100] * 1e6, "us", "<= 1000")
    async with connected(made) as client:
        rate = await _together(client)
    yield row(f"{made.kind} try_consume, {TASKS} tasks, coalesced", rate, "ops/s", ">= 10000")
    yield row(
        f"{made.kind} the same over the client library's own calls", rate / await _library(made), "x", ">= 4"
    )


def _taking(number: int) -> Taking:
    return Taking(f"web:{number % BUCKETS:036x}", COST, 1)


async def _one_at_a_time(client: RespClient) -> list[float]:
    coalescer = Coalescer(Consumer(client, "edge", "bench"))
    times = []
    for number in range(ONE_AT_A_TIME):
        began = time.perf_counter()
        await coalescer.take(_taking(number))
        times.append(time.perf_counter() - began)
    return sorted(times)


async def _together(client: RespClient) -> float:
    """Calls a second of many tasks."""
    coalescer = Coalescer(Consumer(client, "edge", "bench"))

    async def task(first: int) -> None:
        for number in range(EACH):
            await coalescer.take(_taking(first * 7 + number))

    began = time.perf_counter()
    await asyncio.gather(*map(task, range(TASKS)))
    return TASKS * EACH / (time.perf_counter() - began)


async def _library(made: Server) -> float:
    """Calls a second of as many tasks, each on its own, through redis-py and as many connections."""
    pool: Any = library.BlockingConnectionPool(port=made.port, max_connections=TASKS, timeout=20)
    async with library.Redis.from_pool(pool) as client:
        sha = await client.script_load(TAKE.text)
        asked = _pairs(COST, 1)

        async def task(first: int) -> None:
            for number in range(LIBRARY_EACH):
                key = bucket_key("edge", _taking(first * 7 + number).bucket)
                await client.evalsha(sha, 1, key, asked)

        await asyncio.gather(*map(task, range(TASKS)))  # connects
        began = time.perf_counter()
        await asyncio.gather(*map(task, range(TASKS)))
        return TASKS * LIBRARY_EACH / (time.perf_counter() - began)


async def _bulk(made: Server) -> AsyncIterator[Row]:
    async with connected(made) as client:
        store = RespDurable(client, "edge")
        await store.claim("bench", "token")
        buckets = [BucketLevel(f"web:{number:036x}", HOUR) for number in range(ALL)]
        began = time.perf_counter()
        await _write(store, buckets[:CHANGED])
        yield row(f"{made.kind} write {CHANGED:,} buckets", time.perf_counter() - began, "s", "<= 2")
        await _write(store, buckets[CHANGED:])
        began = time.perf_counter()
        found = 0
        async for piece in store.buckets():
            found += len(piece)
        if found < ALL:
            raise RuntimeError(f"{found} of {ALL} buckets came back")
        yield row(f"{made.kind} read {ALL:,} buckets", time.perf_counter() - began, "s", "<= 10")


async def _write(store: RespDurable, buckets: list[BucketLevel]) -> None:
    for start in range(0, len(buckets), store.batch):
        await store.write_buckets(buckets[start : start + store.batch], "token")
