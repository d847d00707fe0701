# SPDX-License-Identifier: Apache-2.0
"""A million buckets from a store into the kernel's table, and rounds of the sync beside another's calls."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import uvloop

from bench.alone import alone
from bench.rows import Row, row
from bench.times import quantile
from support.calls import Calls, served
from support.connected import connected
from support.policy import limit
from support.servers import Kind, Server, server
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.resp.durable import RespDurable
from valkyrie.adapters.settings import SyncSettings
from valkyrie.control import abi
from valkyrie.control.durable import fill
from valkyrie.control.durable.names import Entries, groups_of
from valkyrie.control.durable.restore import restore_buckets
from valkyrie.control.durable.rounds import Rounds
from valkyrie.control.key import KeySpec
from valkyrie.control.limits import Desired
from valkyrie.control.service.world import World
from valkyrie.control.state.slots import Allotment, Slot

SETS = 1 << 18
"""Two million places, so that few sets overflow: 0.7 % of the buckets give way to others."""
ALL, CHANGED, ROUNDS = 1_000_000, 100_000, 7
UNITS = 1_000_000_000 << abi.TIME_SHIFT  # a second
LEVEL = 3600 * UNITS
WEB = limit("web", rate="1/h", burst="1000", key="src")
KINDS: tuple[Kind, ...] = ("redis", "valkey")
HELD = 0.99  # of the buckets, by a table of twice the size
TOKEN = "a" * 32
QUIET_S = 3.0
SYNC_BUDGET, BESIDE_BUDGET, RESTORE_BUDGET = "<= 2", "<= 2", "<= 10"


def run() -> Iterator[Row]:
    """With each server in turn, into the same table."""
    with served("bench", SETS) as calls:
        for kind in KINDS:
            calls.kernel.reset()
            calls.publish([WEB])
            with alone(), server(kind) as made:
                yield from uvloop.run(_measure(calls, made))


class Filler:
    """What restore_buckets asks of the kernel's engine."""

    def __init__(self, pin_dir: Path) -> None:
        self._pin_dir = pin_dir

    def restore(self, entries: Entries, specs: dict[int, KeySpec]) -> int:
        return fill.restore(self._pin_dir, entries, specs)


async def _measure(calls: Calls, made: Server) -> list[Row]:
    world = _world(calls)
    async with connected(made) as client:
        store = RespDurable(client, "edge")
        await store.claim("bench", TOKEN)
        wrote = await _write_all(store)
        began = time.perf_counter()
        restored = await restore_buckets(store, world, Filler(calls.kernel.dp.pin_dir))  # type: ignore[arg-type]
        took = time.perf_counter() - began
        _check(restored.placed, calls)
        with _caller(made) as caller:
            spans = await _rounds(calls, store, world)
            taken = _finish(caller)
    beside = [[each for at, each in taken if begin <= at <= end] for begin, end in spans]
    quiet = [each for at, each in taken if at < spans[0][0]]
    name = f"sync of {CHANGED:,} of {ALL:,} buckets, {made.kind}"
    return [
        row(f"restore of {ALL:,} buckets into the kernel's table, {made.kind}", took, "s", RESTORE_BUDGET),
        row(f"write {ALL:,} buckets, {made.kind}", wrote, "s"),
        row(f"{name}: find and write", median(end - begin for begin, end in spans) / 1e9, "s", SYNC_BUDGET),
        row(
            f"{name}: try_consume meanwhile, p99",
            median(quantile(each, 99) for each in beside) / 1e6,
            "ms",
            BESIDE_BUDGET,
        ),
        row(f"{name}: try_consume before, p99", quantile(quiet, 99) / 1e6, "ms"),
    ]


def _world(calls: Calls) -> World:
    uid = calls.book.limits["web"].uid
    return World(Desired.of([WEB]), {}, Allotment({"web": Slot("web", WEB.key, 0, uid)}, (), uid))


async def _write_all(store: RespDurable) -> float:
    """IPv4 addresses, each so far from full that it matters in every round."""
    buckets = [BucketLevel(f"web:{0xFFFF0A000000 + number:036x}", LEVEL) for number in range(ALL)]
    began = time.perf_counter()
    for start in range(0, ALL, store.batch):
        await store.write_buckets(buckets[start : start + store.batch], TOKEN)
    return time.perf_counter() - began


def _check(placed: int, calls: Calls) -> None:
    live = int(np.count_nonzero(calls.kernel.dp.buckets["fingerprint"]))
    if placed != ALL or live < HELD * ALL:
        raise RuntimeError(f"{placed} of {ALL} buckets placed, {live} in the table")


async def _rounds(calls: Calls, store: RespDurable, world: World) -> list[tuple[int, int]]:
    """Begin and end of each."""
    plane = calls.kernel.dp
    rounds = Rounds(plane, time.monotonic_ns)
    rounds.table_is_told()
    sets, ways = np.nonzero(plane.buckets["fingerprint"])
    random = np.random.default_rng(1)
    spans = []

    async def between() -> None:
        """The owner need not say that it is alive."""

    for _ in range(ROUNDS):
        some = random.choice(len(sets), CHANGED, replace=False)
        plane.buckets["tat"][sets[some], ways[some]] += np.uint64(UNITS)
        before = rounds.totals.written
        began = time.monotonic_ns()
        await rounds.run(
            store,
            TOKEN,
            groups_of(world),
            interval_s=SyncSettings().interval_seconds,
            per_second=SyncSettings().buckets_a_second,
            between=between,
        )
        spans.append((began, time.monotonic_ns()))
        if rounds.totals.written - before < CHANGED:
            raise RuntimeError(f"only {rounds.totals.written - before} buckets written")
    return spans


@contextmanager
def _caller(made: Server) -> Iterator[subprocess.Popen[str]]:
    """Another process that calls the same server one at a time; QUIET_S before this goes on."""
    command = [sys.executable, "-m", "bench.beside", made.kind, made.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "calling\n":
                raise RuntimeError("the other process does not call")
            time.sleep(QUIET_S)
            yield process
        finally:
            process.kill()


def _finish(caller: subprocess.Popen[str]) -> Any:
    """Pairs: when a call began, and nanoseconds that it took."""
    told, _ = caller.communicate("", timeout=30)
    return json.loads(told)
