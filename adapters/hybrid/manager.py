# SPDX-License-Identifier: Apache-2.0
"""HybridStoreManager: a StoreAdapter that asks the first store of a chain that serves.

A call that says that nothing was done is made again at the next store, each store at most once a call.
`try_consume` and `increment` whose outcome is unknown are never: the caller is told. Nothing is asked of two
stores at once. Values (`get`, `set`...) are those of the store in use: they are not copied between stores.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from valkyrie.adapters.asked import checked_tokens
from valkyrie.adapters.errors import (
    AuthenticationFailed,
    CallRefused,
    OutcomeUnknown,
    StoreConfigurationError,
    StoreConnectionError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from valkyrie.adapters.hybrid.chain import Chain, Switch
from valkyrie.adapters.hybrid.events import ChainStatus, Listener, MemberStatus, StoreEvent
from valkyrie.adapters.hybrid.ledger import Ledger
from valkyrie.adapters.hybrid.local import LocalBuckets
from valkyrie.adapters.hybrid.member import Member
from valkyrie.adapters.hybrid.watch import Watch
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.stats import OperationMeter
from valkyrie.adapters.store import Decision, Feature, Health, Request, StoreAdapter, StoreStats

log = logging.getLogger(__name__)

T = TypeVar("T")
WhenAllFail = Literal["fail_closed", "fail_open", "local"]
NOTHING_DONE = (StoreConnectionError, StoreUnavailable, AuthenticationFailed)  # whatever the call was
NONE = "none"
ASK_AGAIN_S = 1.0  # what a caller is told who is refused because every store is away


class HybridStoreManager(StoreAdapter):
    """`members` in the order in which they are asked. The listener is called in the event loop and must not
    block.
    """

    def __init__(
        self,
        members: Sequence[Member],
        book: LimitBook,
        *,
        when_all_fail: WhenAllFail = "fail_closed",
        fail_back_seconds: float = 5.0,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = tuple(members)
        self._book = book
        self._when_all_fail = when_all_fail
        self._listener = listener
        self._clock = clock
        self._chain = Chain(len(self._members), fail_back_seconds)
        self._ledger = Ledger()
        self._remembers = len(self._members) > 1 or when_all_fail == "local"
        self._local = LocalBuckets()
        self._meter = OperationMeter()
        self._counts = {"switch-over": 0, "fail-back": 0, "all-away": 0}
        self._degraded = 0
        self._watch = Watch(self._members, self._chain, self._ledger, self._tell, fail_back_seconds, clock)
        self._closed = False

    async def start(self) -> None:
        """Start all stores at once. Those that are away are tried again in the background; with every store
        away this returns all the same. Raises StoreConfigurationError if a store cannot do what its settings
        ask.
        """
        started = await asyncio.gather(*(one.start() for one in self._members), return_exceptions=True)
        wrong = [error for error in started if isinstance(error, StoreConfigurationError)]
        bugs = [error for error in started if isinstance(error, BaseException) and not _of_store(error)]
        if wrong or bugs:
            await self.close()
            raise (bugs or wrong)[0]
        now = self._clock()
        for index, error in reversed(list(enumerate(started))):
            if isinstance(error, StoreError):
                self._failed(index, now, error)
        self._watch.start()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._watch.close()
        await asyncio.gather(*(one.close() for one in self._members))

    async def get(self, key: str) -> bytes | None:
        return await self._repeatable("get", lambda store: store.get(key))

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        await self._repeatable("set", lambda store: store.set(key, value, ttl))

    async def delete(self, key: str) -> bool:
        return await self._repeatable("delete", lambda store: store.delete(key))

    async def exists(self, key: str) -> bool:
        return await self._repeatable("exists", lambda store: store.exists(key))

    async def ttl(self, key: str) -> float | None:
        return await self._repeatable("ttl", lambda store: store.ttl(key))

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        with self._meter.timed("increment"):
            return await self._asked(lambda store: store.increment(key, amount, ttl), once=True)

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        found = limit if isinstance(limit, Limit) else await self._book.limit(limit)
        with self._meter.timed("try_consume"):
            try:
                decision = await self._asked(lambda store: store.try_consume(key, n, limit=found), once=True)
            except _AllAwayError:
                decision = self._alone(key, found, n)
        self._note(key, found, n, decision)
        return decision

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        limits: dict[str, Limit] = {}
        for one in requests:
            if isinstance(one.limit, str) and one.limit not in limits:
                limits[one.limit] = await self._book.limit(one.limit)
        asked = [
            Request(one.key, limits[one.limit], one.n) if isinstance(one.limit, str) else one
            for one in requests
        ]
        with self._meter.timed("try_consume_many"):
            try:
                decisions = await self._asked(lambda store: store.try_consume_many(asked), once=True)
            except _AllAwayError:
                decisions = [self._alone(one.key, _limit(one), one.n) for one in asked]
        for one, decision in zip(asked, decisions, strict=True):
            self._note(one.key, _limit(one), one.n, decision)
        return decisions

    async def health_check(self) -> Health:
        """That of the store in use."""
        index = self._chain.in_use
        if index is None:
            return Health(ok=False, latency_ms=0.0, detail=f"every store is away: {self._troubles()}")
        return await self._members[index].probe()

    def stats(self) -> StoreStats:
        """Of calls to the manager, whichever store answered; `status` has each store's own."""
        each = [found for member in self._members if (found := member.stats()) is not None]
        extra: dict[str, int | float | str] = {
            "switch_overs": self._counts["switch-over"],
            "fail_backs": self._counts["fail-back"],
            "all_aways": self._counts["all-away"],
            "degraded": self._degraded,
            "carried": self._watch.carried,
        }
        connections = sum(found.connections for found in each)
        return StoreStats(self.backend_name, connections, self._meter.snapshot(), extra)

    def status(self) -> ChainStatus:
        """How the chain stands, store by store."""
        index = self._chain.in_use
        return ChainStatus(
            None if index is None else self._members[index].name,
            self._when_all_fail,
            tuple(self._shown(place) for place in range(len(self._members))),
            self._counts["switch-over"],
            self._counts["fail-back"],
            self._counts["all-away"],
            self._degraded,
            self._watch.carried,
            self._ledger.forgotten,
        )

    @property
    def members(self) -> Sequence[Member]:
        return self._members

    @property
    def backend_name(self) -> str:
        index = self._chain.in_use
        return NONE if index is None else self._members[index].name

    def supports_feature(self, feature: Feature) -> bool:
        """Whether the store in use does; with every store away, nothing is."""
        index = self._chain.in_use
        if index is None or not self._members[index].started:
            return False
        return self._members[index].adapter.supports_feature(feature)

    async def flush_all(self) -> int:
        """In the store in use alone."""
        with self._meter.timed("flush_all"):
            return await self._asked(lambda store: store.flush_all(), once=True)

    async def _repeatable(self, name: str, call: Callable[[StoreAdapter], Awaitable[T]]) -> T:
        with self._meter.timed(name):
            return await self._asked(call, once=False)

    async def _asked(self, call: Callable[[StoreAdapter], Awaitable[T]], *, once: bool) -> T:
        """The answer of the first store that gives one. Raises _AllAwayError when none does."""
        tried: list[int] = []
        refused: CallRefused | None = None
        began = self._clock()
        while (index := self._chain.choose(tried)) is not None:
            member = self._members[index]
            try:
                if once or member.patience_s is None:
                    return await call(member.adapter)
                async with asyncio.timeout(member.patience_s):
                    return await call(member.adapter)
            except CallRefused as error:
                refused = error
            except NOTHING_DONE as error:
                self._failed(index, began, error)
            except OutcomeUnknown as error:
                self._failed(index, began, error)
                raise
            except (StoreTimeout, TimeoutError) as error:
                late = (
                    error
                    if isinstance(error, StoreTimeout)
                    else StoreTimeout(f"{member.name} gave no answer within {member.patience_s} s")
                )
                self._failed(index, began, late)
                if once:
                    raise OutcomeUnknown(late.what, "it took effect once, or not at all") from error
            tried.append(index)
            began = self._clock()
        if refused is not None:
            raise refused
        raise _AllAwayError(
            f"every store is away: {self._troubles()}", "`valkyrie-ctl store check` says what to mend"
        )

    def _note(self, key: str, limit: Limit, n: int, decision: Decision) -> None:
        if self._remembers and decision.store != NONE:
            self._ledger.note(key, limit, n, decision, self._clock())

    def _alone(self, key: str, limit: Limit, n: int) -> Decision:
        """The decision when no store makes one."""
        self._degraded += 1
        checked_tokens(n)
        if self._when_all_fail == "local":
            return self._local.take(key, limit, n, self._ledger, self._clock())
        allowed = self._when_all_fail == "fail_open"
        return Decision(allowed, 0, 0.0 if allowed else ASK_AGAIN_S, 0.0, NONE, degraded=True)

    def _failed(self, index: int, began: float, error: StoreError) -> None:
        self._members[index].error = error
        switch = self._chain.failed(index, began, self._clock(), str(error))
        self._watch.look(index)
        if switch is not None:
            self._tell(switch)
            self._watch.switched(switch)

    def _tell(self, switch: Switch) -> None:
        self._counts[switch.kind] += 1
        event = StoreEvent(switch.kind, self._name(switch.source), self._name(switch.target), switch.why)
        log.log(logging.INFO if switch.kind == "fail-back" else logging.WARNING, "%s", event)
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception:
                log.exception("a listener of store events failed")

    def _name(self, index: int | None) -> str | None:
        return None if index is None else self._members[index].name

    def _troubles(self) -> str:
        return "; ".join(
            f"{member.name}: {self._chain.place(index).why}" for index, member in enumerate(self._members)
        )

    def _shown(self, index: int) -> MemberStatus:
        member, place, now = self._members[index], self._chain.place(index), self._clock()
        state: Literal["in-use", "ready", "well", "away", "starting"]
        if index == self._chain.in_use:
            state = "in-use"
        elif place.away:
            state = "away" if place.well_since is None else "well"
        else:
            state = "ready" if member.started else "starting"
        detail = place.why or member.health.detail
        well = None if place.well_since is None else now - place.well_since
        hold = self._chain.hold(index)
        latency = member.health.latency_ms
        return MemberStatus(member.name, state, detail, latency, well, hold, member.stats())


class _AllAwayError(StoreUnavailable):
    """No store of the chain serves; nothing was done."""


def _limit(request: Request) -> Limit:
    assert isinstance(request.limit, Limit)
    return request.limit


def _of_store(error: BaseException) -> bool:
    return isinstance(error, StoreError)
