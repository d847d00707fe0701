# SPDX-License-Identifier: Apache-2.0
"""Buckets of every store: a burst and no more, honest answers, the same as the reference's."""

import asyncio
import time
from math import inf
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.contract import Maker
from support.gcra_model import Model
from valkyrie.adapters.limit import MAX_TOKENS, Limit
from valkyrie.adapters.store import Request, StoreAdapter
from valkyrie.control.errors import InvalidInput, NotFound

SLOW = Limit.of("slow", "10/h", "10")  # nothing comes back while a test runs
HOUR = 3600.0


async def test_a_burst_is_admitted_and_no_more(store: StoreAdapter) -> None:
    answers = [await store.try_consume("k", limit=SLOW) for _ in range(12)]
    assert [answer.allowed for answer in answers] == [True] * 10 + [False] * 2
    assert [answer.remaining for answer in answers] == [*range(9, -1, -1), 0, 0]


async def test_several_tokens_are_taken_at_once(store: StoreAdapter) -> None:
    assert (await store.try_consume("k", 7, limit=SLOW)).remaining == 3
    refused = await store.try_consume("k", 4, limit=SLOW)
    assert not refused.allowed
    assert refused.remaining == 3
    assert (await store.try_consume("k", 3, limit=SLOW)).allowed


async def test_a_refusal_takes_nothing(store: StoreAdapter) -> None:
    await store.try_consume("k", 8, limit=SLOW)
    for _ in range(20):
        assert not (await store.try_consume("k", 3, limit=SLOW)).allowed
    assert (await store.try_consume("k", 2, limit=SLOW)).allowed


async def test_zero_tokens_look_without_taking(store: StoreAdapter) -> None:
    for _ in range(3):
        look = await store.try_consume("k", 0, limit=SLOW)
        assert look.allowed
        assert look.remaining == 10
        assert look.retry_after == 0
        assert look.reset_after == 0
    await store.try_consume("k", 10, limit=SLOW)
    look = await store.try_consume("k", 0, limit=SLOW)
    assert look.allowed
    assert look.remaining == 0
    assert HOUR - 30 < look.reset_after <= HOUR


async def test_more_than_the_burst_never_fits(store: StoreAdapter) -> None:
    answer = await store.try_consume("k", 11, limit=SLOW)
    assert not answer.allowed
    assert answer.retry_after == inf
    assert answer.remaining == 10
    assert not (await store.try_consume("k", MAX_TOKENS, limit=SLOW)).allowed


async def test_retry_and_reset_say_when(store: StoreAdapter) -> None:
    await store.try_consume("k", 10, limit=SLOW)
    answer = await store.try_consume("k", 3, limit=SLOW)
    assert 3 * 360 - 30 < answer.retry_after <= 3 * 360
    assert HOUR - 30 < answer.reset_after <= HOUR


async def test_who_waits_as_told_is_admitted(store: StoreAdapter) -> None:
    limit = Limit.of("quick", "20/s", "2")
    for _ in range(3):
        while (answer := await store.try_consume("k", limit=limit)).allowed:
            pass
        assert 0 < answer.retry_after <= 0.05
        await asyncio.sleep(answer.retry_after + 0.001)  # by a clock that may run a little faster
        assert (await store.try_consume("k", limit=limit)).allowed


@pytest.mark.parametrize("n", [-1, MAX_TOKENS + 1, 1 << 64, 1.5, "1", None])
async def test_a_number_of_tokens_that_is_none_is_refused(store: StoreAdapter, n: Any) -> None:
    with pytest.raises(InvalidInput):
        await store.try_consume("k", n, limit=SLOW)
    with pytest.raises(InvalidInput):
        await store.try_consume_many([Request("k", SLOW), Request("k", SLOW, n)])
    assert (await store.try_consume("k", 0, limit=SLOW)).remaining == 10


@pytest.mark.parametrize("key", ["", "k" * 1025, "\ud800", 5], ids=["empty", "long", "lone", "int"])
async def test_what_is_no_key_is_refused(store: StoreAdapter, key: Any) -> None:
    with pytest.raises(InvalidInput):
        await store.try_consume(key, limit=SLOW)
    with pytest.raises(InvalidInput):
        await store.try_consume_many([Request("fine", SLOW), Request(key, SLOW)])
    assert (await store.try_consume("fine", 0, limit=SLOW)).remaining == 10


async def test_any_text_is_a_key_of_its_own(store: StoreAdapter) -> None:
    keys = ["k", "K", "k\0", "\0", "{k}", "k ", "*", "é", "k" * 1024]
    for key in keys:
        assert (await store.try_consume(key, limit=SLOW)).remaining == 9


async def test_the_same_key_in_two_limits_is_two_buckets(store: StoreAdapter) -> None:
    other = Limit.of("other", "10/h", "10")
    await store.try_consume("k", 10, limit=SLOW)
    assert (await store.try_consume("k", 10, limit=other)).allowed
    assert not (await store.try_consume("k", limit=SLOW)).allowed


async def test_a_limit_of_other_figures_shares_the_bucket_of_its_name(store: StoreAdapter) -> None:
    await store.try_consume("k", 10, limit=SLOW)
    assert not (await store.try_consume("k", limit=Limit.of("slow", "10/h", "10"))).allowed
    assert (await store.try_consume("k", limit=Limit.of("slow", "10/h", "20"))).remaining == 9


async def test_many_are_answered_in_order(store: StoreAdapter) -> None:
    sizes = [1, 2, 3, 4, 5]
    answers = await store.try_consume_many([Request(f"k{n}", SLOW, n) for n in sizes])
    assert [answer.remaining for answer in answers] == [10 - n for n in sizes]
    assert await store.try_consume_many([]) == []


async def test_a_key_that_comes_again_among_many_is_taken_from_again(store: StoreAdapter) -> None:
    answers = await store.try_consume_many(
        [Request("k", SLOW, n) for n in (6, 6, 0, 3, 2, 1)] + [Request("other", SLOW, 1)]
    )
    assert [answer.allowed for answer in answers] == [True, False, True, True, False, True, True]
    assert [answer.remaining for answer in answers] == [4, 4, 4, 1, 1, 0, 9]


async def test_a_thousand_keys_in_one_call(store: StoreAdapter) -> None:
    answers = await store.try_consume_many([Request(f"k{i}", SLOW, 1 + i % 11) for i in range(1000)])
    assert [answer.allowed for answer in answers] == [i % 11 < 10 for i in range(1000)]


async def test_a_thousand_at_once_take_the_burst_and_no_more(store: StoreAdapter) -> None:
    limit = Limit.of("many", "100/h", "100")
    answers = await asyncio.gather(*(store.try_consume("k", limit=limit) for _ in range(1000)))
    assert sum(answer.allowed for answer in answers) == 100
    assert sorted(answer.remaining for answer in answers if answer.allowed) == list(range(100))


async def test_two_adapters_share_the_buckets(maker: Maker, store: StoreAdapter) -> None:
    async with maker() as other:
        answers = await asyncio.gather(
            *(each.try_consume("k", limit=SLOW) for _ in range(20) for each in (store, other))
        )
    assert sum(answer.allowed for answer in answers) == 10


async def test_under_load_burst_and_rate_are_admitted_and_no_more(store: StoreAdapter) -> None:
    limit = Limit.of("busy", "200/s", "50")
    rounds = 0
    admitted, due = 0, 50.0
    began = answered = time.monotonic()
    while (asked := time.monotonic()) < began + 0.4:
        due += min(50, (asked - answered) * 200) if rounds else 0  # what surely came back since
        answers = await asyncio.gather(*(store.try_consume("k", limit=limit) for _ in range(60)))
        answered = time.monotonic()
        admitted += sum(answer.allowed for answer in answers)
        rounds += 1
    assert int(due) - 1 <= admitted <= 50 + 200 * (answered - began) + 1


async def test_declared_limits_go_by_name(store: StoreAdapter) -> None:
    answers = [await store.try_consume("198.51.100.7", limit="web") for _ in range(6)]
    assert [answer.allowed for answer in answers] == [True] * 5 + [False]
    assert (await store.try_consume("198.51.100.8", limit="web")).remaining == 4
    assert (await store.try_consume("someone@example.org", limit="logins")).remaining == 3


async def test_keys_of_one_meaning_are_one_bucket(store: StoreAdapter) -> None:
    await store.try_consume("198.51.100.7", limit="web")
    assert (await store.try_consume("::ffff:198.51.100.7", limit="web")).remaining == 3
    await store.try_consume("2001:db8::1", limit="web")
    assert (await store.try_consume("2001:db8::2", limit="web")).remaining == 3


async def test_an_override_gives_its_prefix_other_figures(store: StoreAdapter) -> None:
    assert (await store.try_consume("203.0.113.9", limit="web")).remaining == 8
    assert (await store.try_consume("::ffff:203.0.113.9", limit="web")).remaining == 7
    assert (await store.try_consume("203.0.114.9", limit="web")).remaining == 4
    many = await store.try_consume_many([Request(f"203.0.{third}.1", "web") for third in (113, 114)])
    assert [answer.remaining for answer in many] == [8, 4]


async def test_6to4_has_the_figures_of_its_ipv4_address_or_else_of_the_ipv6_prefix_around(
    store: StoreAdapter,
) -> None:
    assert (await store.try_consume("2002:cb00:7109::1", limit="web")).remaining == 8  # 203.0.113.9
    assert (await store.try_consume("2002:cb00:7209::1", limit="web")).remaining == 6  # 203.0.114.9
    assert (await store.try_consume("203.0.114.9", limit="web")).remaining == 3
    assert (await store.try_consume("::ffff:203.0.114.10", limit="web")).remaining == 4
    assert (await store.try_consume("2001:db8::1", limit="web")).remaining == 4


async def test_bytes_are_tokens_of_a_limit_in_bytes(store: StoreAdapter) -> None:
    answer = await store.try_consume("global", 1500, limit="volume")
    assert answer.remaining == 2500
    assert not (await store.try_consume("global", 2501, limit="volume")).allowed
    assert (await store.try_consume("global", 2500, limit="volume")).remaining == 0


async def test_a_declared_limit_that_there_is_not_is_not_found(store: StoreAdapter) -> None:
    with pytest.raises(NotFound):
        await store.try_consume("k", limit="nonesuch")
    with pytest.raises(NotFound):
        await store.try_consume_many([Request("198.51.100.7", "web"), Request("k", "nonesuch")])
    assert (await store.try_consume("198.51.100.7", 0, limit="web")).remaining == 5


@pytest.mark.parametrize("key", ["", "nobody", "198.51.100.7 dport", "1.2.3.4>5.6.7.8", "300.1.1.1"])
async def test_a_key_that_does_not_fit_the_declared_limit_is_refused(store: StoreAdapter, key: str) -> None:
    with pytest.raises(InvalidInput):
        await store.try_consume(key, limit="web")


RATES = [
    ("1/h", "1"),
    ("1/h", "1000"),
    ("7/m", "3"),
    ("100/s", "10"),
    ("1000000/s", "5"),
    ("600000000/s", "1000"),
    ("1gbit/s", "1514B"),
    ("32bit/h", "1514B"),
    ("333mbit/s", "64KB"),
]
COUNTS = st.lists(st.integers(0, 12) | st.integers(0, 5000) | st.just(MAX_TOKENS), min_size=1, max_size=15)


@pytest.mark.parametrize(("rate", "burst"), RATES)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=COUNTS, together=st.booleans())
async def test_every_sequence_is_answered_as_the_reference_does(
    store: StoreAdapter, rate: str, burst: str, counts: list[int], together: bool
) -> None:
    limit = Limit.of("model", rate, burst)
    key = uuid4().hex
    model = Model(limit.cost)
    if together:
        asked = time.monotonic_ns()
        answers = await store.try_consume_many([Request(key, limit, n) for n in counts])
        answered = time.monotonic_ns()
        for n, answer in zip(counts, answers, strict=True):
            model.check(n, asked, answered, answer)
        return
    for n in counts:
        asked = time.monotonic_ns()
        answer = await store.try_consume(key, n, limit=limit)
        model.check(n, asked, time.monotonic_ns(), answer)
