# SPDX-License-Identifier: Apache-2.0
"""A store that may be migrated: the one that the settings name, until a note in it says otherwise.

Without a migration a call costs one more Python call and a look at the clock, and the note one small read a
second. The note is a lease: who could not read it in time (a process that was stopped, a loop that was
blocked, a store that does not answer) looks again before it takes tokens or writes values, WAIT_S at most. If
that fails while a migration is known, the call is refused. Where none is known the store is asked all the
same: the note is in that very store, and a look that fails must not take a store away that serves; it is
looked again each second. So who has never seen a migration, cannot read the note for UNNOTED_S and can still
take tokens goes on at the source after the switch, until a look succeeds. So does a call that the store's
client holds back for longer than UNDER_WAY_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

from valkyrie.adapters.errors import StoreConnectionError, StoreError, StoreUnavailable
from valkyrie.adapters.hybrid.member import Member
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.migrate.front import Alone, Both, Calls, Mirrored
from valkyrie.adapters.migrate.lease import LOOK_S, NEVER, Lease, answer_of, ended
from valkyrie.adapters.migrate.mirror import Mirror
from valkyrie.adapters.migrate.note import BUSY_POLL_S, DOCUMENT, HELD_S, POLL_S, UNNOTED_S, Note, read_note
from valkyrie.adapters.migrate.side import Side
from valkyrie.adapters.store import Decision, Feature, Health, Request, StoreAdapter, StoreStats

log = logging.getLogger(__name__)

HOLD_S = 8.0  # that `increment` waits for the switch to be over
START_S = 1.0  # for the other store, when it is to be asked from now on

T = TypeVar("T")


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
        self._lease = Lease(name, self._look, clock)
        self._starting: asyncio.Task[None] | None = None  # of the other store

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
        await ended(self._task)
        await self._lease.close()
        await ended(self._starting)
        if self._mirror is not None:
            await self._mirror.close()
        if self._other is not None:
            await self._other.close()
        await self._base.close()

    # Calls. No coroutine of its own around those of the store.

    def get(self, key: str) -> Coroutine[Any, Any, bytes | None]:
        return self._front.get(key)

    def set(self, key: str, value: bytes, ttl: float | None = None) -> Coroutine[Any, Any, None]:
        if self._clock() > self._lease.until:
            return self._surely(lambda: self._front.set(key, value, ttl))
        return self._front.set(key, value, ttl)

    def delete(self, key: str) -> Coroutine[Any, Any, bool]:
        if self._clock() > self._lease.until:
            return self._surely(lambda: self._front.delete(key))
        return self._front.delete(key)

    def exists(self, key: str) -> Coroutine[Any, Any, bool]:
        return self._front.exists(key)

    def ttl(self, key: str) -> Coroutine[Any, Any, float | None]:
        return self._front.ttl(key)

    def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Coroutine[Any, Any, Decision]:
        if self._clock() > self._lease.until:
            return self._surely(lambda: self._front.try_consume(key, n, limit=limit))
        return self._front.try_consume(key, n, limit=limit)

    def try_consume_many(self, requests: Sequence[Request]) -> Coroutine[Any, Any, list[Decision]]:
        if self._clock() > self._lease.until:
            return self._surely(lambda: self._front.try_consume_many(requests))
        return self._front.try_consume_many(requests)

    def flush_all(self) -> Coroutine[Any, Any, int]:
        if self._clock() > self._lease.until:
            return self._surely(lambda: self._front.flush_all())  # noqa: PLW0108 the front of then
        return self._front.flush_all()

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        """Between two primaries it waits, HOLD_S at most: neither could tell the other the sum in time."""
        if isinstance(self._front, Both):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_S):
                    while isinstance(self._front, Both):
                        self._noted.clear()
                        await self._noted.wait()
        if self._clock() > self._lease.until:
            await self._sure()
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

    async def _surely(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Look at the note before the call."""
        await self._sure()
        return await call()

    async def _sure(self) -> None:
        """Raises StoreUnavailable when it is not known which store decides."""
        if not await self._lease.renewed() and self._note is not None:
            raise StoreUnavailable(
                f"which store decides is not known: the note of the migration from {self._note.source} to "
                f"{self._note.target} could not be read for {HELD_S:g} s",
                "if the migration is over and one of the stores is gone, start this process again",
            )

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_S if self._note is None else BUSY_POLL_S)
            await self._lease.look()

    async def _look(self) -> None:
        """Read the note where it may lie, and follow the newest. Raises StoreError when it is not known which
        that is.
        """
        asked, known = {self._name: self._base}, self._note
        if known is not None and self._other is not None and self._other.started:
            asked[known.other(self._name)] = self._other.adapter
        began = self._clock()
        reads = [answer_of(whole(one).get_document(DOCUMENT), name) for name, one in asked.items()]
        answers = dict(zip(asked, await asyncio.gather(*reads), strict=True))
        errors = [one for one in answers.values() if isinstance(one, Exception)]
        found = [note for one in answers.values() if isinstance(one, bytes) and (note := read_note(one))]
        for error in errors:
            if not isinstance(error, StoreError) or len(errors) == len(answers):
                raise error
        newest = max(found, key=lambda note: note.order, default=None)
        if newest is not None and (known is None or newest.order > known.order):
            await self._obey(newest, began)
        elif known is not None and newest is None:
            self._check_over(known, answers)
            await self._over(known)
        elif known is not None and newest is not None and newest.order < known.order and errors:
            raise errors[0]
        self._hold(began)
        self._start_other()

    def _check_over(self, note: Note, answers: dict[str, bytes | Exception | None]) -> None:
        """Raises StoreError unless the migration has ended. That one store has no note any more proves it
        only after the last phase: before, the other may hold a later one.
        """
        wanted = (note.primary,) if note.last else (note.source, note.target)
        for name in wanted:
            found = answers.get(name, StoreConnectionError(f"{name} has not started"))
            if isinstance(found, Exception):
                raise found

    def _hold(self, began: float) -> None:
        """The lease begins when the note was asked for."""
        self._lease.until = began + (UNNOTED_S if self._note is None else HELD_S)

    async def _obey(self, note: Note, began: float) -> None:
        if self._name not in (note.source, note.target):
            return
        if self._note is None or self._note.epoch != note.epoch:
            if self._note is not None:
                self._lease.until = (
                    NEVER  # meanwhile calls wait: the store of the settings need not be in use
                )
            await self._forget()
            other = note.other(self._name)
            self._other = Member(other, lambda: self._make(other))
        if self._other is not None and (note.both or note.primary != self._name):
            self._start_other()
            if self._starting is not None:
                await asyncio.wait({self._starting}, timeout=START_S)
        self._note = note
        before = self._mirror
        of = {self._name: lambda: self._base, note.other(self._name): self._reach}
        primary, secondary = of[note.primary], of[note.secondary]
        self._mirror = Mirror(lambda: whole(primary()).side(), lambda: whole(secondary()).side(), self._clock)
        self._mirror.start()
        kind = Mirrored if note.mirrors else Both if note.both else Alone
        self._primary = primary
        self._front = kind(primary, secondary, self._mirror, self._book)
        self._hold(began)
        self._noted.set()
        log.info("migration from %s to %s: %s", note.source, note.target, note.phase)
        if before is not None:
            await before.close()

    def _start_other(self) -> None:
        """In the background, unless it has started or is about to: looks do not wait for it."""
        other = self._other
        if other is not None and not other.started and (self._starting is None or self._starting.done()):
            self._starting = asyncio.get_running_loop().create_task(_started(other))

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
        await ended(self._starting)
        if mirror is not None:
            await mirror.close()
        if other is not None:
            await other.close()


async def _started(other: Member) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await other.probe()
