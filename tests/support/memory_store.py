# SPDX-License-Identifier: Apache-2.0
"""A store in memory with faults on demand: away, hung, its replies lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal

from valkyrie.adapters import gcra
from valkyrie.adapters.asked import asks
from valkyrie.adapters.errors import OutcomeUnknown, StoreConnectionError, StoreError, StoreTimeout
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.store import Decision, Feature, Health, Request, StoreAdapter, StoreStats
from valkyrie.control.errors import NotFound

UNITS_A_S = 64 * 1_000_000_000
Fault = Literal["", "away", "hung", "loses replies"]


class Server:
    """What outlives an adapter: buckets, values, and the fault. `calls` counts those that arrived."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.clock = clock
        self.fault: Fault = ""
        self.error: StoreError | None = None  # raised in place of an answer
        self.tats: dict[str, int] = {}
        self.values: dict[str, bytes] = {}
        self.calls = 0
        self.failed = 0
        self.consumed = 0
        self.starts = 0
        self.open = 0


class MemoryStore(StoreAdapter):
    """`timeout_s` is how long a call to a hung server waits."""

    def __init__(self, server: Server, book: LimitBook, timeout_s: float = 0.05) -> None:
        self.server = server
        self._book = book
        self._timeout_s = timeout_s

    async def start(self) -> None:
        self.server.starts += 1
        await self._arrive()
        self.server.open += 1

    async def close(self) -> None:
        self.server.open -= 1

    async def _arrive(self, *, once: bool = False) -> None:
        server = self.server
        server.calls += 1
        await asyncio.sleep(0)
        try:
            if server.error is not None:
                raise server.error
            if server.fault == "away":
                raise StoreConnectionError(f"{server.name}: connection refused")
            if server.fault == "hung":
                await asyncio.sleep(self._timeout_s)
                kind = OutcomeUnknown if once else StoreTimeout
                raise kind(f"{server.name}: no answer within {self._timeout_s} s")
        except StoreError:
            server.failed += 1
            raise

    def _reply(self) -> None:
        if self.server.fault == "loses replies":
            self.server.failed += 1
            raise OutcomeUnknown(f"{self.server.name}: the reply was lost")

    async def get(self, key: str) -> bytes | None:
        await self._arrive()
        return self.server.values.get(key)

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await self._arrive()
        self.server.values[key] = value

    async def delete(self, key: str) -> bool:
        await self._arrive()
        return self.server.values.pop(key, None) is not None

    async def exists(self, key: str) -> bool:
        await self._arrive()
        return key in self.server.values

    async def ttl(self, key: str) -> float | None:
        await self._arrive()
        if key not in self.server.values:
            raise NotFound(f"there is no {key}")
        return None

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        await self._arrive(once=True)
        total = int(self.server.values.get(key, b"0")) + amount
        self.server.values[key] = str(total).encode()
        self._reply()
        return total

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        return (await self.try_consume_many([Request(key, limit, n)]))[0]

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        asked = await asks(self._book, requests)
        await self._arrive(once=True)
        decisions = []
        for bucket, cost, n in asked:
            now = int(self.server.clock() * UNITS_A_S)
            level = max(0, self.server.tats.get(bucket, 0) - now)
            allowed, after = gcra.take(level, cost, n)
            self.server.tats[bucket] = now + after
            self.server.consumed += n if allowed else 0
            decisions.append(gcra.decision(after, cost, n, allowed, self.server.name))
        self._reply()
        return decisions

    async def health_check(self) -> Health:
        try:
            await self._arrive()
        except StoreError as error:
            return Health(ok=False, latency_ms=0.0, detail=str(error))
        return Health(ok=True, latency_ms=0.1, detail=f"{self.server.name} 1.0")

    def stats(self) -> StoreStats:
        return StoreStats(self.server.name, 1, {})

    @property
    def backend_name(self) -> str:
        return self.server.name

    def supports_feature(self, feature: Feature) -> bool:
        return feature is Feature.DECLARED_LIMITS

    async def flush_all(self) -> int:
        await self._arrive()
        count = len(self.server.tats) + len(self.server.values)
        self.server.tats.clear()
        self.server.values.clear()
        return count
