# SPDX-License-Identifier: Apache-2.0
"""What callers meet while a migration runs: one store that is asked, and the other that is told.

The other store never fails a call: what it did not take is told again by the mirror.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from valkyrie.adapters.errors import OutcomeUnknown, StoreError
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.migrate.mirror import Mirror
from valkyrie.adapters.naming import bucket_of
from valkyrie.adapters.store import Decision, Request, StoreAdapter

Of = Callable[[], StoreAdapter]  # raises StoreConnectionError while it has not started


class Calls(Protocol):
    """The part of a StoreAdapter that is about keys; every StoreAdapter is one."""

    async def get(self, key: str) -> bytes | None: ...
    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None: ...
    async def delete(self, key: str) -> bool: ...
    async def exists(self, key: str) -> bool: ...
    async def ttl(self, key: str) -> float | None: ...
    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int: ...
    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision: ...
    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]: ...
    async def flush_all(self) -> int: ...


class Alone:
    """One store, by name; for when it is not the one that the settings name."""

    def __init__(self, primary: Of, secondary: Of, mirror: Mirror, book: LimitBook) -> None:
        self._primary = primary
        self._secondary = secondary
        self._mirror = mirror
        self._book = book

    async def get(self, key: str) -> bytes | None:
        return await self._primary().get(key)

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await self._primary().set(key, value, ttl)

    async def delete(self, key: str) -> bool:
        return await self._primary().delete(key)

    async def exists(self, key: str) -> bool:
        return await self._primary().exists(key)

    async def ttl(self, key: str) -> float | None:
        return await self._primary().ttl(key)

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        return await self._primary().increment(key, amount, ttl)

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        return await self._primary().try_consume(key, n, limit=limit)

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        return await self._primary().try_consume_many(requests)

    async def flush_all(self) -> int:
        return await self._primary().flush_all()

    async def _resolved(self, request: Request) -> tuple[Request, Limit]:
        """With the limit itself in place of its name."""
        limit = request.limit
        if isinstance(limit, str):
            limit = await self._book.limit(limit)
        return replace(request, limit=limit), limit

    async def _consume(self, primary: StoreAdapter, asked: Sequence[tuple[Request, Limit]]) -> list[Decision]:
        """As try_consume_many; the mirror hears of buckets of which the outcome is unknown, as it is too when
        a caller gives up.
        """
        try:
            if len(asked) == 1:
                ((one, limit),) = asked
                return [await primary.try_consume(one.key, one.n, limit=limit)]
            return await primary.try_consume_many([one for one, _ in asked])
        except (OutcomeUnknown, asyncio.CancelledError):
            for one, limit in asked:
                self._mirror.unsure(bucket_of(limit, one.key))
            raise


class Mirrored(Alone):
    """The primary decides, and the secondary is told afterwards."""

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        try:
            await self._primary().set(key, value, ttl)
        finally:
            self._mirror.value(key)

    async def delete(self, key: str) -> bool:
        try:
            return await self._primary().delete(key)
        finally:
            self._mirror.value(key)

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        try:
            return await self._primary().increment(key, amount, ttl)
        finally:
            self._mirror.value(key)

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        return (await self._mirrored([await self._resolved(Request(key, limit, n))]))[0]

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        return await self._mirrored([await self._resolved(one) for one in requests])

    async def _mirrored(self, asked: Sequence[tuple[Request, Limit]]) -> list[Decision]:
        decisions = await self._consume(self._primary(), asked)
        for (one, limit), decision in zip(asked, decisions, strict=True):
            if decision.allowed and one.n:
                self._mirror.bucket(bucket_of(limit, one.key), decision.reset_after)
        return decisions

    async def flush_all(self) -> int:
        gone = await self._primary().flush_all()
        await self._secondary().flush_all()
        return gone


class Both(Alone):
    """Between two primaries: tokens are taken from one store and then from the other, and allowed only if
    both allow. What the second refuses is gone from the first. Values are written to both, and read from
    the first.
    """

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        try:
            await self._primary().set(key, value, ttl)
        except StoreError:
            self._mirror.value(key)
            raise
        try:
            await self._secondary().set(key, value, ttl)
        except StoreError:
            self._mirror.value(key)

    async def delete(self, key: str) -> bool:
        found = await self._primary().delete(key)
        try:
            await self._secondary().delete(key)
        except StoreError:
            self._mirror.value(key)
        return found

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        try:
            return await self._primary().increment(key, amount, ttl)
        finally:
            self._mirror.value(key)

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        return (await self._doubly([await self._resolved(Request(key, limit, n))]))[0]

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        return await self._doubly([await self._resolved(one) for one in requests])

    async def _doubly(self, asked: Sequence[tuple[Request, Limit]]) -> list[Decision]:
        decisions = await self._consume(self._primary(), asked)
        taken = [index for index, (one, _) in enumerate(asked) if decisions[index].allowed and one.n]
        if not taken:
            return decisions
        try:
            second = await self._consume(self._secondary(), [asked[index] for index in taken])
        except (StoreError, asyncio.CancelledError) as error:
            for index in taken:
                one, limit = asked[index]
                self._mirror.bucket(bucket_of(limit, one.key), decisions[index].reset_after)
            if isinstance(error, asyncio.CancelledError):
                raise
            return decisions
        for index, decision in zip(taken, second, strict=True):
            decisions[index] = _combined(decisions[index], decision)
        return decisions

    async def flush_all(self) -> int:
        gone = await self._primary().flush_all()
        await self._secondary().flush_all()
        return gone


def _combined(first: Decision, second: Decision) -> Decision:
    """The stricter of two; it carries the name of the first store."""
    if not second.allowed:
        return replace(second, store=first.store)
    return replace(
        first,
        remaining=min(first.remaining, second.remaining),
        reset_after=max(first.reset_after, second.reset_after),
    )
