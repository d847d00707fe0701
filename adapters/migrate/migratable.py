# SPDX-License-Identifier: Apache-2.0
"""A store that may be migrated: the one that the settings name, until a note in it says otherwise.

Without a migration a call costs one more Python call, and the note one small read a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.hybrid.member import Member
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.migrate.front import Alone, Both, Calls, Mirrored
from valkyrie.adapters.migrate.mirror import Mirror
from valkyrie.adapters.migrate.note import BUSY_POLL_S, DOCUMENT, POLL_S, Note, read_note
from valkyrie.adapters.migrate.side import Side
from valkyrie.adapters.store import Decision, Feature, Health, Request, StoreAdapter, StoreStats

log = logging.getLogger(__name__)

HOLD_S = 8.0  # that `increment` waits for the switch to be over
LOOK_S = 5.0
START_S = 1.0  # for the other store, when it is to be asked from now on


class Whole(Protocol):
    """A store that can be a side of a migration."""

    def side(self) -> Side: ...

    async def get_document(self, name: str) -> bytes | None: ...


def whole(adapter: StoreAdapter) -> Whole:
    """The adapters of redis, valkey and embedded are such."""
    return cast("Whole", adapter)


class Migratable(StoreAdapter):
    """`make` makes a store of the settings by its name; `name` is the one that the settings ask for."""

    def __init__(
        self,
        name: str,
        make: Callable[[str], StoreAdapter],
        book: LimitBook,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._make = make
        self._book = book
        self._clock = clock
        self._base = make(name)
        self._primary: Callable[[], StoreAdapter] = lambda: self._base
        self._front: Calls = self._base
        self._other: Member | None = None
        self._mirror: Mirror | None = None
        self._note: Note | None = None
        self._noted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._base.start()
        try:
            await self._look()
        except StoreError as error:  # as rights that lack; it is tried again
            log.warning("whether %s is being migrated is not known: %s", self._name, error)
        except BaseException:
            await self._base.close()
            raise
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._mirror is not None:
            await self._mirror.close()
        if self._other is not None:
            await self._other.close()
        await self._base.close()

    # Calls. No coroutine of its own around those of the store.

    def get(self, key: str) -> Coroutine[Any, Any, bytes | None]:
        return self._front.get(key)

    def set(self, key: str, value: bytes, ttl: float | None = None) -> Coroutine[Any, Any, None]:
        return self._front.set(key, value, ttl)

    def delete(self, key: str) -> Coroutine[Any, Any, bool]:
        return self._front.delete(key)

    def exists(self, key: str) -> Coroutine[Any, Any, bool]:
        return self._front.exists(key)

    def ttl(self, key: str) -> Coroutine[Any, Any, float | None]:
        return self._front.ttl(key)

    def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Coroutine[Any, Any, Decision]:
        return self._front.try_consume(key, n, limit=limit)

    def try_consume_many(self, requests: Sequence[Request]) -> Coroutine[Any, Any, list[Decision]]:
        return self._front.try_consume_many(requests)

    def flush_all(self) -> Coroutine[Any, Any, int]:
        return self._front.flush_all()

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        """Between two primaries it waits, HOLD_S at most: neither could tell the other the sum in time."""
        if isinstance(self._front, Both):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_S):
                    while isinstance(self._front, Both):
                        self._noted.clear()
                        await self._noted.wait()
        return await self._front.increment(key, amount, ttl)

    async def get_document(self, name: str) -> bytes | None:
        return await whole(self._primary()).get_document(name)

    async def health_check(self) -> Health:
        try:
            return await self._primary().health_check()
        except StoreError as error:
            return Health(ok=False, latency_ms=0.0, detail=str(error))

    def stats(self) -> StoreStats:
        try:
            found = self._primary().stats()
        except StoreError:
            found = self._base.stats()
        if self._note is None or self._mirror is None:
            return found
        mirror = self._mirror
        more = {"migration": self._note.phase, "mirrored": mirror.told, "mirror_waiting": mirror.waiting,
                "mirror_failed": mirror.failed, "mirror_lost": mirror.lost}  # fmt: skip
        return replace(found, extra={**found.extra, **more})

    @property
    def backend_name(self) -> str:
        return self._name if self._note is None else self._note.primary

    def supports_feature(self, feature: Feature) -> bool:
        try:
            return self._primary().supports_feature(feature)
        except StoreError:
            return self._base.supports_feature(feature)

    # The note.

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_S if self._note is None else BUSY_POLL_S)
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look()

    async def _look(self) -> None:
        """Read the note where it may lie, and follow the newest. Raises StoreError when no store can be
        asked.
        """
        asked: list[StoreAdapter] = [self._base]
        if self._other is not None and self._other.started:
            asked.append(self._other.adapter)
        answers = await asyncio.gather(
            *(whole(one).get_document(DOCUMENT) for one in asked), return_exceptions=True
        )
        errors = [one for one in answers if isinstance(one, BaseException)]
        found = [note for one in answers if isinstance(one, bytes) and (note := read_note(one)) is not None]
        for error in errors:
            if not isinstance(error, StoreError) or len(errors) == len(answers):
                raise error
        if found:
            newest = max(found, key=lambda note: note.order)
            if self._note is None or newest.order > self._note.order:
                await self._obey(newest)
            elif self._other is not None and not self._other.started:
                await self._other.probe()
        elif not errors and self._note is not None:
            await self._over(self._note)

    async def _obey(self, note: Note) -> None:
        if self._name not in (note.source, note.target):
            return
        if self._note is None or self._note.epoch != note.epoch:
            await self._forget()
            other = note.other(self._name)
            self._other = Member(other, lambda: self._make(other))
        if self._other is not None and (note.both or note.primary != self._name):
            with contextlib.suppress(TimeoutError):  # later looks go on trying
                async with asyncio.timeout(START_S):
                    await self._other.probe()
        self._note = note
        before = self._mirror
        of = {self._name: lambda: self._base, note.other(self._name): self._reach}
        primary, secondary = of[note.primary], of[note.secondary]
        self._mirror = Mirror(lambda: whole(primary()).side(), lambda: whole(secondary()).side(), self._clock)
        self._mirror.start()
        kind = Mirrored if note.mirrors else Both if note.both else Alone
        self._primary = primary
        self._front = kind(primary, secondary, self._mirror, self._book)
        self._noted.set()
        log.info("migration from %s to %s: %s", note.source, note.target, note.phase)
        if before is not None:
            await before.close()

    def _reach(self) -> StoreAdapter:
        assert self._other is not None
        return self._other.adapter

    async def _over(self, note: Note) -> None:
        """The note is gone from both stores. Settings that name the store that was left are not followed."""
        if note.primary == self._name:
            await self._forget()

    async def _forget(self) -> None:
        self._primary, self._front, self._note = (lambda: self._base), self._base, None
        self._noted.set()
        mirror, other, self._mirror, self._other = self._mirror, self._other, None, None
        if mirror is not None:
            await mirror.close()
        if other is not None:
            await other.close()
