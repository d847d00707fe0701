# SPDX-License-Identifier: Apache-2.0
"""One store of a chain: made and started when it can be, probed, and told about."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from valkyrie.adapters.errors import StoreConnectionError, StoreError
from valkyrie.adapters.store import Health, StoreAdapter, StoreStats

START_S = 15.0  # within which a store starts, its own retries included, or is away
PROBE_S = 3.0
CLOSE_S = 5.0


class Member:
    """`patience_s` bounds a call that may be repeated elsewhere; None: the store bounds its own."""

    def __init__(self, name: str, make: Callable[[], StoreAdapter], patience_s: float | None = None) -> None:
        self._name = name
        self.patience_s = patience_s
        self.health = Health(ok=False, latency_ms=0.0, detail="not started")
        self.error: StoreError | None = None  # by which it was found away last
        self._make = make
        self._adapter: StoreAdapter | None = None
        self._starting = asyncio.Lock()

    @property
    def name(self) -> str:
        """Of the store that answers: another one than was asked for while it is migrated."""
        return self._name if self._adapter is None else self._adapter.backend_name

    @property
    def started(self) -> bool:
        return self._adapter is not None

    @property
    def adapter(self) -> StoreAdapter:
        """Raises StoreConnectionError before it has started: nothing was sent."""
        if self._adapter is None:
            raise StoreConnectionError(f"{self.name} has not started: {self.health.detail}")
        return self._adapter

    def stats(self) -> StoreStats | None:
        return None if self._adapter is None else self._adapter.stats()

    async def start(self) -> None:
        """Start it unless it is. Raises StoreError; then it can be tried again."""
        async with self._starting:
            if self._adapter is not None:
                return
            began = time.perf_counter()
            try:
                adapter = self._make()
                try:
                    async with asyncio.timeout(START_S):
                        await adapter.start()
                except BaseException:
                    with contextlib.suppress(StoreError, TimeoutError):
                        await _closed(adapter)
                    raise
            except TimeoutError:
                self._found(StoreConnectionError(f"{self.name} did not start within {START_S:g} s"), began)
                raise self._failure from None
            except StoreError as error:
                self._found(error, began)
                raise
            self._adapter = adapter
            self.error = None
            self.health = Health(ok=True, latency_ms=_since(began), detail="started")

    async def probe(self) -> Health:
        """Whether it serves; one that has not started is started. Raises no StoreError."""
        began = time.perf_counter()
        try:
            if self._adapter is None:
                await self.start()
            else:
                async with asyncio.timeout(PROBE_S):
                    self.health = await self._adapter.health_check()
                if self.health.ok:
                    self.error = None
        except TimeoutError:
            self.health = Health(
                ok=False, latency_ms=_since(began), detail=f"no answer to a probe within {PROBE_S:g} s"
            )
        except StoreError as error:
            self._found(error, began)
        return self.health

    async def close(self) -> None:
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            with contextlib.suppress(StoreError, TimeoutError):
                await _closed(adapter)

    @property
    def _failure(self) -> StoreError:
        assert self.error is not None
        return self.error

    def _found(self, error: StoreError, began: float) -> None:
        self.error = error
        self.health = Health(ok=False, latency_ms=_since(began), detail=str(error))


async def _closed(adapter: StoreAdapter) -> None:
    async with asyncio.timeout(CLOSE_S):
        await adapter.close()


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
