# SPDX-License-Identifier: Apache-2.0
"""`StoreAdapter` and `DurableStore` on the file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from valkyrie.adapters.asked import Ask, asks, checked_amount, checked_key, checked_ttl, checked_value
from valkyrie.adapters.embedded.clock import HostClock
from valkyrie.adapters.embedded.durable import EmbeddedDurable
from valkyrie.adapters.embedded.file import StoreFile
from valkyrie.adapters.embedded.values import Values
from valkyrie.adapters.embedded.writer import Act
from valkyrie.adapters.errors import StoreConfigurationError, StoreError
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.migrate.embedded import EmbeddedSide
from valkyrie.adapters.settings import EmbeddedSettings
from valkyrie.adapters.stats import OperationMeter
from valkyrie.adapters.store import Decision, Feature, Health, Request, StoreAdapter, StoreStats

NAME = "embedded"
FLUSHED = 2000  # rows deleted in one transaction
HEALTH_SECONDS = 3.0
FEATURES = frozenset({Feature.DURABLE, Feature.DECLARED_LIMITS})
HOST = HostClock()


class EmbeddedAdapter(StoreAdapter, EmbeddedDurable):
    """Several processes may use one file: every call is a transaction, and they share the file's clock.

    What is acknowledged survives the process; after a power cut the last moments may be missing.
    """

    def __init__(
        self,
        settings: EmbeddedSettings,
        appliance: str,
        book: LimitBook,
        *,
        allow_flush: bool = False,
        clock: HostClock = HOST,
    ) -> None:
        self._file = StoreFile(settings, appliance, clock)
        self._values_bound = settings.max_values_mb << 20
        self._book = book
        self._allow_flush = allow_flush
        self._meter = OperationMeter()

    async def start(self) -> None:
        await self._file.open()

    async def close(self) -> None:
        await self._file.close()

    def _values(self, act: Act) -> Values:
        return Values(act.connection, self._file.appliance, act.now, self._values_bound)

    # Values.

    async def get(self, key: str) -> bytes | None:
        with self._meter.timed("get"):
            name = checked_key(key).encode()
            return await self._file.run(lambda act: self._values(act).get(name), writes=False)

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        with self._meter.timed("set"):
            name, content, ms = checked_key(key).encode(), checked_value(value), checked_ttl(ttl)
            await self._file.run(lambda act: self._values(act).put(name, content, ms), size=len(content))

    async def delete(self, key: str) -> bool:
        with self._meter.timed("delete"):
            name = checked_key(key).encode()
            return await self._file.run(lambda act: self._values(act).delete(name))

    async def exists(self, key: str) -> bool:
        with self._meter.timed("exists"):
            name = checked_key(key).encode()
            return await self._file.run(lambda act: self._values(act).exists(name), writes=False)

    async def ttl(self, key: str) -> float | None:
        with self._meter.timed("ttl"):
            name = checked_key(key).encode()
            return await self._file.run(lambda act: self._values(act).ttl(name), writes=False)

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        with self._meter.timed("increment"):
            name, ms, change = checked_key(key).encode(), checked_ttl(ttl), checked_amount(amount)
            return await self._file.run(lambda act: self._values(act).add(name, change, ms))

    def side(self) -> EmbeddedSide:
        """What a migration needs of it beside."""
        return EmbeddedSide(self._file, self._values)

    # Buckets.

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        with self._meter.timed("try_consume"):
            return (await self._take(await asks(self._book, [Request(key, limit, n)])))[0]

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        with self._meter.timed("try_consume_many"):
            return await self._take(await asks(self._book, requests))

    async def _take(self, wanted: list[Ask]) -> list[Decision]:
        """Nothing is unknown here: a transaction that fails took nothing."""
        if not wanted:
            return []
        taking = any(n for _, _, n in wanted)
        return await self._file.run(
            lambda act: [act.buckets.take(self._file.appliance, ask, NAME) for ask in wanted],
            writes=taking,
            rows=len(wanted),
        )

    # The store itself.

    async def health_check(self) -> Health:
        began = time.perf_counter()
        try:
            with self._meter.timed("health_check"):
                async with asyncio.timeout(HEALTH_SECONDS):
                    detail = await self._file.probe()
            ok = True
        except TimeoutError:
            ok, detail = False, f"no answer from {self._file.path} in {HEALTH_SECONDS:g} s: look at the disk"
        except StoreError as error:
            ok, detail = False, str(error)
        return Health(ok, (time.perf_counter() - began) * 1000, detail)

    def stats(self) -> StoreStats:
        return StoreStats(NAME, int(self._file.is_open), self._meter.snapshot(), self._file.figures())

    @property
    def backend_name(self) -> str:
        return NAME

    def supports_feature(self, feature: Feature) -> bool:
        return feature in FEATURES

    async def flush_all(self) -> int:
        with self._meter.timed("flush_all"):
            if not self._allow_flush:
                raise StoreConfigurationError(
                    "flush_all is not allowed",
                    "set store.allow_flush if all buckets and values may be deleted",
                )
            total = 0
            while True:
                deleted = await self._file.run(self._flush_some, rows=FLUSHED)
                total += deleted
                if deleted < FLUSHED:
                    return total

    def _flush_some(self, act: Act) -> int:
        act.buckets.flush()
        mine = (self._file.appliance, FLUSHED)
        buckets = act.connection.execute(FLUSH_BUCKETS, (self._file.appliance, *mine)).rowcount
        return buckets + act.connection.execute(FLUSH_VALUES, mine).rowcount


FLUSH_BUCKETS = """DELETE FROM buckets WHERE appliance = ? AND name IN
  (SELECT name FROM buckets WHERE appliance = ? LIMIT ?)"""
FLUSH_VALUES = "DELETE FROM contents WHERE id IN (SELECT id FROM contents WHERE appliance = ? LIMIT ?)"
