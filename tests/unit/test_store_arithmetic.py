# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of stores is the kernel's; what it says of waiting holds; the meter counts."""

import asyncio
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.reference.bucket import Bucket, Plan, charge
from valkyrie.adapters.asked import checked_ttl, cost_for
from valkyrie.adapters.errors import StoreTimeout
from valkyrie.adapters.gcra import UNITS_A_US, decision, remaining, seconds, take
from valkyrie.adapters.limit import MAX_TOKENS, Limit
from valkyrie.adapters.overrides import Overrides
from valkyrie.adapters.stats import WINDOW, OperationMeter
from valkyrie.control.cost import MAX_TAU, Cost
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import parse_key

COSTS = st.builds(Cost, st.integers(1, (1 << 47) - 1), st.just(0), st.integers(1, MAX_TAU)) | st.builds(
    Cost, st.integers(1, (1 << 40) - 1), st.integers(1, 32), st.integers(1, MAX_TAU)
)
LEVELS = st.integers(0, MAX_TAU)
TOKENS = st.integers(0, 1 << 16) | st.just(1 << 17)


@given(COSTS, LEVELS, TOKENS)
def test_a_take_is_bit_for_bit_the_kernel_s(cost: Cost, level: int, n: int) -> None:
    now = 1 << 40
    bucket = Bucket(tat=now + level)
    plan = Plan(cost.mult, cost.shift, cost.tau)
    allowed = charge(bucket, now, plan.cost(n), cost.tau)
    assert take(level, cost, n) == (allowed, bucket.tat - now)


@given(COSTS, LEVELS)
@example(Cost(3, 1, 10), 10)
def test_what_remains_is_the_most_that_can_be_taken(cost: Cost, level: int) -> None:
    left = remaining(level, cost)
    assert left == 0 or take(level, cost, left)[0]
    assert not take(level, cost, left + 1)[0]


@given(COSTS, LEVELS, st.integers(0, MAX_TOKENS))
def test_who_waits_as_told_is_allowed(cost: Cost, level: int, n: int) -> None:
    allowed, after = take(level, cost, n)
    told = decision(after, cost, n, allowed, "x")
    if allowed:
        assert told.retry_after == 0
    elif cost.of(n) > cost.tau:
        assert told.retry_after == inf
    else:
        waited = round(told.retry_after * 1_000_000) * UNITS_A_US
        assert take(max(0, level - waited), cost, n)[0]
        assert not take(level - waited + UNITS_A_US, cost, n)[0]
    assert round(told.reset_after * 1_000_000) * UNITS_A_US - after in range(UNITS_A_US)


def test_seconds_are_rounded_up_to_a_microsecond() -> None:
    assert [seconds(units) for units in (0, 1, UNITS_A_US, UNITS_A_US + 1)] == [0, 1e-6, 1e-6, 2e-6]


def test_ttls_are_whole_milliseconds() -> None:
    assert [checked_ttl(ttl) for ttl in (None, 0.001, 0.0011, 0.29, 1.1, 30)] == [
        None,
        1,
        2,
        290,
        1100,
        30000,
    ]
    with pytest.raises(InvalidInput):
        checked_ttl(0)


def test_an_override_goes_by_the_end_that_the_limit_says() -> None:
    plain, other = Cost(1, 0, 10), Cost(1, 0, 20)
    by_source = Overrides([("10.1.0.0/16", other)])
    by_destination = Overrides([("10.1.0.0/16", other)], destination=True)
    pair = Limit("x", plain, declared=True, key=parse_key("src+dst"), overrides=by_source)
    assert cost_for(pair, "10.1.2.3>10.2.0.1") == other
    assert cost_for(pair, "10.2.0.1>10.1.2.3 dport 80") == plain
    into = Limit("x", plain, declared=True, key=parse_key("dst"), overrides=by_destination)
    assert cost_for(into, "10.1.2.3") == cost_for(into, "10.1.2.0/24") == other
    assert cost_for(into, "2002:a01:203::1") == other  # 6to4 of 10.1.2.3, as the packet program reads it


def test_the_meter_counts_calls_and_errors() -> None:
    meter = OperationMeter()
    for _ in range(4):
        with meter.timed("get"):
            pass
    for error in (StoreTimeout("late"), InvalidInput("wrong"), asyncio.CancelledError()):
        with pytest.raises(type(error)), meter.timed("get"):
            raise error
    told = meter.snapshot()
    assert set(told) == {"get"}
    assert (told["get"].count, told["get"].errors) == (7, 1)
    assert 0 < told["get"].p50_ms <= told["get"].p95_ms <= told["get"].p99_ms


def test_the_meter_s_window_is_bounded() -> None:
    meter = OperationMeter()
    for _ in range(WINDOW + 5):
        with meter.timed("get"):
            pass
    assert meter.snapshot()["get"].count == WINDOW + 5
    assert len(meter._operations["get"].recent) == WINDOW


@pytest.mark.parametrize("words", [("l", 10, "1"), ("l", "10/s", 0), (7, "10/s", None)])
def test_a_limit_s_words_that_are_no_text_are_named(words: tuple[str, str, str | None]) -> None:
    with pytest.raises(InvalidInput, match="is no text"):
        Limit.of(*words)
