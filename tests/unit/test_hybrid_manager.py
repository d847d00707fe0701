# SPDX-License-Identifier: Apache-2.0
"""A chain of stores as one: what switches, what is repeated and what never is, and what is carried along."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from support.memory_store import MemoryStore, Server
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    OutcomeUnknown,
    StoreConfigurationError,
    StoreUnavailable,
)
from valkyrie.adapters.hybrid import chain
from valkyrie.adapters.hybrid.events import StoreEvent
from valkyrie.adapters.hybrid.manager import HybridStoreManager
from valkyrie.adapters.hybrid.member import Member
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.store import Feature, Request
from valkyrie.control.errors import InvalidInput, NotFound

BOOK = StaticBook()
LOGIN = Limit.of("login", "1/h", "10")
TIMEOUT = 0.05
HOLD = 0.2


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.005)


class Pair:
    """A manager over servers `a` and `b`, and what it told."""

    def __init__(self, **settings: Any) -> None:
        self.a, self.b = Server("a"), Server("b")
        self.events: list[StoreEvent] = []
        members = [
            Member(server.name, partial(MemoryStore, server, BOOK, TIMEOUT), TIMEOUT)
            for server in (self.a, self.b)
        ]
        given = {"fail_back_seconds": HOLD, "listener": self.events.append, **settings}
        self.store = HybridStoreManager(members, BOOK, **given)

    async def take(self, n: int = 1, key: str = "u") -> bool:
        return (await self.store.try_consume(key, n, limit=LOGIN)).allowed

    @property
    def in_use(self) -> str:
        return self.store.backend_name


@asynccontextmanager
async def pair(**settings: Any) -> AsyncIterator[Pair]:
    made = Pair(**settings)
    async with made.store:
        yield made
    assert made.a.open == made.b.open == 0


async def test_the_first_store_is_used_while_it_serves() -> None:
    async with pair() as both:
        assert (await both.store.try_consume("u", 1, limit=LOGIN)).store == "a"
        assert both.b.consumed == 0
        assert both.store.supports_feature(Feature.DECLARED_LIMITS)


async def test_a_refused_connection_costs_the_caller_nothing_and_the_next_store_answers() -> None:
    async with pair() as both:
        both.a.fault = "away"
        decision = await both.store.try_consume("u", 3, limit=LOGIN)
        assert (decision.allowed, decision.store, decision.degraded) == (True, "b", False)
        assert both.b.consumed == 3
        assert [(one.kind, one.source, one.target) for one in both.events] == [("switch-over", "a", "b")]


async def test_a_hung_store_costs_one_timeout_and_later_calls_none() -> None:
    async with pair() as both:
        both.a.fault = "hung"
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await both.take()
        assert time.monotonic() - began < 3 * TIMEOUT
        assert both.in_use == "b"
        began = time.monotonic()
        for _ in range(5):
            assert await both.take()
        assert time.monotonic() - began < TIMEOUT


async def test_reading_from_a_hung_store_is_answered_by_the_next_within_a_timeout() -> None:
    async with pair() as both:
        await both.store.set("k", b"a's")
        both.b.values["k"] = b"b's"
        both.a.fault = "hung"
        began = time.monotonic()
        assert await both.store.get("k") == b"b's"
        assert time.monotonic() - began < 3 * TIMEOUT


@pytest.mark.parametrize("name", ["try_consume", "try_consume_many", "increment"])
async def test_a_call_whose_outcome_is_unknown_is_never_made_again(name: str) -> None:
    async with pair() as both:
        both.a.fault = "loses replies"
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "try_consume": lambda: both.store.try_consume("u", 2, limit=LOGIN),
            "try_consume_many": lambda: both.store.try_consume_many([Request("u", LOGIN, 2)]),
            "increment": lambda: both.store.increment("n", 2),
        }
        with pytest.raises(OutcomeUnknown):
            await calls[name]()
        assert both.b.consumed == 0
        assert not both.b.values
        assert both.in_use == "b"


async def test_a_wrong_password_switches_and_a_missing_permission_does_not() -> None:
    async with pair() as both:
        both.a.error = AuthorizationFailed("no permission for key k")
        with pytest.raises(AuthorizationFailed):
            await both.store.get("k")
        assert both.in_use == "a"
        both.a.error = AuthenticationFailed("WRONGPASS")
        assert await both.take()
        assert both.in_use == "b"


async def test_a_callers_mistake_switches_nothing() -> None:
    async with pair() as both:
        with pytest.raises(InvalidInput):
            await both.take(-1)
        with pytest.raises(NotFound):
            await both.store.try_consume("u", limit="nowhere")
        assert both.in_use == "a"
        assert not both.events


async def test_with_health_back_for_the_hold_the_first_store_is_used_again() -> None:
    async with pair() as both:
        both.a.fault = "away"
        await both.take()
        both.a.fault = ""
        began = time.monotonic()
        await until(lambda: both.in_use == "a")
        assert time.monotonic() - began >= HOLD
        assert [one.kind for one in both.events] == ["switch-over", "fail-back"]
        status = both.store.status()
        assert (status.switch_overs, status.fail_backs, status.in_use) == (1, 1, "a")


async def test_what_was_consumed_elsewhere_is_owed_after_the_fail_back() -> None:
    async with pair() as both:
        assert await both.take(2)
        both.a.fault = "away"
        assert await both.take(7)
        both.a.fault = ""
        await until(lambda: both.in_use == "a")
        assert not await both.take(2)
        assert await both.take(1)


async def test_what_was_consumed_before_the_switch_is_owed_at_the_next_store() -> None:
    async with pair() as both:
        assert await both.take(9)
        both.a.fault = "away"
        await both.store.try_consume("other", limit=LOGIN)
        await until(lambda: both.store.stats().extra["carried"] == 1)
        assert not await both.take(2)
        assert await both.take(1)


async def test_over_many_switches_no_more_is_admitted_than_the_limit_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chain, "LEAST_HOLD_S", 0.005)
    async with pair(fail_back_seconds=0) as both:
        admitted = 0
        for _ in range(4):
            both.a.fault = "away"
            admitted += await both.take(1)
            both.a.fault = ""
            await until(lambda: both.in_use == "a")
            admitted += await both.take(1)
        assert admitted == 8
        for _ in range(10):
            admitted += await both.take(1)
        assert admitted == 10


async def test_under_load_a_bucket_admits_no_more_over_a_switch_and_back() -> None:
    """A bucket of 2,000 that hardly refills, emptied by 20 callers while the first store goes and comes."""
    slow = Limit.of("slow", "1/h", "2000")
    async with pair() as both:
        admitted, unknown = 0, 0
        ended = False

        async def caller() -> None:
            nonlocal admitted, unknown
            while not ended:
                try:
                    decision = await both.store.try_consume("u", limit=slow)
                    admitted += decision.allowed
                except OutcomeUnknown:
                    unknown += 1
                await asyncio.sleep(0.005)

        callers = [asyncio.ensure_future(caller()) for _ in range(20)]
        await until(lambda: admitted > 200)
        both.a.fault = "hung"
        await until(lambda: both.in_use == "b" and admitted > 500)
        both.a.fault = ""
        await until(lambda: both.in_use == "a")
        await until(lambda: both.a.consumed >= 2000)
        await until(lambda: both.store.status().carried >= 2)
        ended = True
        await asyncio.gather(*callers)
        # What was under way while a store was being told may come on top: one call for each caller.
        assert 1950 <= admitted <= 2000 + 2 * len(callers)
        assert unknown <= len(callers)


async def test_every_store_away_refuses_and_says_so() -> None:
    async with pair() as both:
        both.a.fault = both.b.fault = "away"
        decision = await both.store.try_consume("u", limit=LOGIN)
        assert (decision.allowed, decision.degraded, decision.store) == (False, True, "none")
        assert decision.retry_after > 0
        assert (both.events[-1].kind, both.in_use) == ("all-away", "none")
        with pytest.raises(StoreUnavailable, match="connection refused"):
            await both.store.get("k")
        assert not (await both.store.health_check()).ok
        assert not both.store.supports_feature(Feature.DECLARED_LIMITS)


async def test_every_store_away_allows_if_the_setting_says_so() -> None:
    async with pair(when_all_fail="fail_open") as both:
        both.a.fault = both.b.fault = "away"
        many = await both.store.try_consume_many([Request("u", LOGIN, 100)] * 2)
        assert [(one.allowed, one.degraded) for one in many] == [(True, True)] * 2
        assert both.store.status().degraded == 2


async def test_every_store_away_limits_in_memory_from_what_was_owed_and_is_owed_for_it_later() -> None:
    async with pair(when_all_fail="local") as both:
        assert await both.take(4)
        both.a.fault = both.b.fault = "away"
        assert not await both.take(7)
        decision = await both.store.try_consume("u", 5, limit=LOGIN)
        assert (decision.allowed, decision.degraded, decision.remaining) == (True, True, 1)
        both.a.fault = ""
        await until(lambda: both.in_use == "a")
        await until(lambda: both.store.stats().extra["carried"] == 1)
        assert not await both.take(2)


async def test_the_first_store_to_return_is_used_at_once_when_all_were_away() -> None:
    async with pair(fail_back_seconds=60) as both:
        both.a.fault = both.b.fault = "away"
        assert not await both.take()
        both.b.fault = ""
        await until(lambda: both.in_use == "b", 3)
        assert await both.take()


async def test_it_starts_with_stores_away_and_takes_them_in_when_they_come() -> None:
    both = Pair(fail_back_seconds=0.1)
    both.a.fault = both.b.fault = "away"
    async with both.store:
        assert not await both.take()
        both.a.fault = both.b.fault = ""
        await until(lambda: both.in_use == "a")
        assert await both.take()


async def test_a_store_that_cannot_do_what_its_settings_ask_is_refused_at_start() -> None:
    both = Pair()
    both.b.error = StoreConfigurationError("bind_address 0.0.0.0 is not possible here")
    with pytest.raises(StoreConfigurationError, match="bind_address"):
        await both.store.start()
    assert both.a.open == 0


async def test_a_wrong_password_is_not_tried_again_and_again() -> None:
    both = Pair()
    both.a.error = AuthenticationFailed("WRONGPASS")
    async with both.store:
        await until(lambda: both.a.starts == 2)
        await asyncio.sleep(0.5)
        assert both.a.starts == 2


async def test_a_flapping_store_is_given_longer_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "LEAST_HOLD_S", 0.05)
    async with pair(fail_back_seconds=0.05) as both:
        for _ in range(3):
            both.a.fault = "away"
            await both.take(0)
            both.a.fault = ""
            await until(lambda: both.in_use == "a")
        both.a.fault = "away"
        await both.take(0)
        shown = both.store.status().stores[0]
        assert shown.state in ("away", "well")
        assert shown.hold_s == pytest.approx(0.05 * 8)


async def test_under_load_only_calls_in_flight_meet_the_fault() -> None:
    async with pair() as both:
        unknown, answers = 0, 0

        async def caller(number: int) -> None:
            nonlocal unknown, answers
            for turn in range(50):
                if (number, turn) == (0, 10):
                    both.a.fault = "hung"
                try:
                    await both.store.try_consume(f"u{number}", 0, limit=LOGIN)
                    answers += 1
                except OutcomeUnknown:
                    unknown += 1

        await asyncio.gather(*(caller(number) for number in range(40)))
        assert unknown <= 40
        assert answers + unknown == 2000
        assert both.in_use == "b"


async def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: StoreEvent) -> None:
        raise ValueError("mine")

    async with pair(listener=broken) as both:
        both.a.fault = "away"
        assert await both.take()
    assert "a listener of store events failed" in caplog.text


async def test_events_read_as_sentences() -> None:
    assert str(StoreEvent("switch-over", "a", "b", "refused")) == "a is away, using b: refused"
    assert str(StoreEvent("all-away", "b", None, "x")) == "b is away and no other store serves: x"
    assert str(StoreEvent("fail-back", "b", "a", "well for 5.0 s")) == "back from b to a (well for 5.0 s)"
    assert str(StoreEvent("fail-back", None, "a", "well for 0.0 s")) == "a serves again (well for 0.0 s)"
