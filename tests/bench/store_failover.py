# SPDX-License-Identifier: Apache-2.0
"""A primary that is lost, and a store that is lost: which calls fail, and how long the others take."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.alone import alone
from bench.rows import Row, row
from bench.store_calls import KEYS, KINDS
from support.clusters import Cluster, cluster
from support.resp import adapter_for, until
from support.servers import Server, server, wait_for
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import bucket_key, bucket_of
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings

LIMIT = Limit.of("web", "1000/s", "1000000")
CALLERS = 50
AFTER_S = 1.0  # of calls that are counted when all are served again
OUTAGE_S = 30.0
TIMEOUT_MS = 500
RECOVERED_BUDGET, NONE, ONE_TIMEOUT = "<= 5", "<= 0", "<= 1.1"


@dataclass
class Callers:
    """Tasks that call without a pause."""

    call: Callable[[str], Awaitable[object]]
    under_way: int = 0
    served: dict[str, float] = field(default_factory=dict)
    failed: list[float] = field(default_factory=list)
    taken: list[tuple[float, float]] = field(default_factory=list)  # when a call began, and how long
    ending: bool = False

    async def run(self, key: str) -> None:
        while not self.ending:
            began = time.perf_counter()
            self.under_way += 1
            try:
                await self.call(key)
                self.served[key] = time.perf_counter()
            except StoreError:
                self.failed.append(time.perf_counter())
            finally:
                self.under_way -= 1
                self.taken.append((began, time.perf_counter() - began))
            await asyncio.sleep(0)

    async def through(self, lose: Callable[[], None]) -> tuple[int, float]:
        """Calls under way when the server was lost, and when that was. Ends when all are served again."""
        keys = KEYS[:CALLERS]
        async with asyncio.TaskGroup() as tasks:
            for key in keys:
                tasks.create_task(self.run(key))
            try:
                await self._all_served(0.0)
                await asyncio.sleep(AFTER_S / 2)
                await self._all_under_way()
                under_way, lost = self.under_way, time.perf_counter()
                lose()
                await self._all_served(lost + 0.05)  # what it sent before is read by then
                await asyncio.sleep(AFTER_S)
            finally:
                self.ending = True
        return under_way, lost

    async def _all_under_way(self) -> None:
        """Those of one shard are answered together and call again a turn of the event loop later: at any
        moment some callers, or all, may have no call under way that the loss could touch.
        """
        ended = time.perf_counter() + OUTAGE_S
        while self.under_way < CALLERS:
            assert time.perf_counter() < ended, "there is no moment at which all callers wait for an answer"
            await asyncio.sleep(0)

    async def _all_served(self, since: float) -> None:
        await until(lambda: sum(at > since for at in self.served.values()) == CALLERS, "all served", OUTAGE_S)


def failover() -> Iterator[Row]:
    """In a cluster of six nodes; a primary is killed, then one hangs."""
    for kind in KINDS:
        for how in ("killed", "hung"):
            with cluster(kind) as made:
                yield from uvloop.run(_failover(made, how))


async def _failover(made: Cluster, how: str) -> list[Row]:
    kind = made.nodes[0].kind
    async with adapter_for(kind, made.url, cluster_mode=True) as store:
        callers = Callers(lambda key: store.try_consume(key, limit=LIMIT))
        await store.try_consume(KEYS[0], limit=LIMIT)
        primary = made.primary_of(bucket_key("edge", bucket_of(LIMIT, KEYS[0])))
        wait_for(lambda: primary.run("WAIT", 1, 100) == 1, "the replica in step")
        under_way, lost = await callers.through(primary.kill if how == "killed" else primary.stop)
    stalled = max(taken for _, taken in callers.taken)
    recovered = max([*callers.failed, lost + stalled]) - lost
    name = f"primary of a {kind} cluster {how}, {CALLERS} callers"
    return [
        row(f"{name}: calls that fail / in flight", len(callers.failed) / under_way, "x", "<= 1"),
        row(f"{name}: until all are served again", recovered, "s", RECOVERED_BUDGET),
    ]


def switch() -> Iterator[Row]:
    """From Redis to the next store of the chain."""
    for how in ("killed", "hung"):
        with alone(), server("redis") as made, tempfile.TemporaryDirectory() as folder:
            yield from uvloop.run(_switch(made, Path(folder), how))


async def _switch(made: Server, folder: Path, how: str) -> list[Row]:
    settings = StoreSettings.model_validate(
        {
            "mode": "redis",
            "fallback_chain": ["embedded"],
            "redis": {"url": made.url, "timeout_ms": TIMEOUT_MS},
            "embedded": {"path": folder / "store.db"},
        }
    )
    around = Around("edge", StaticBook(), NoSecrets(), Path("/nowhere"))
    async with StoreFactory().chain(settings, around) as chain:
        callers = Callers(chain.get)
        under_way, lost = await callers.through(made.kill if how == "killed" else made.stop)
    longest = max(taken for began, taken in callers.taken if began + taken > lost)
    first_s = TIMEOUT_MS / 1000
    later = [taken for began, taken in callers.taken if began > lost + longest]
    name = f"redis {how}, {CALLERS} callers, next store of the chain"
    return [
        row(f"{name}: longest call, in timeouts", longest / first_s, "x", ONE_TIMEOUT),
        row(f"{name}: calls that fail", len(callers.failed), "", NONE),
        row(f"{name}: later calls that take a timeout", sum(taken >= first_s for taken in later), "", NONE),
        row(f"{name}: longest later call", max(later) * 1000, "ms"),
        row(f"{name}: calls under way", under_way, ""),
    ]
