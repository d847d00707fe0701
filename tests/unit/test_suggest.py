# SPDX-License-Identifier: Apache-2.0
"""Rates found from what was seen: the replay is the limiter's arithmetic, estimates hold their bounds."""

import base64
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valkyrie.adapters import gcra
from valkyrie.control.cost import UNITS_A_NS, Cost
from valkyrie.control.limits import Limit
from valkyrie.control.suggest.analysis import Seen, estimate, outcomes, proposed, rates, replay, seen
from valkyrie.control.suggest.gathered import RECORD, Gathered
from valkyrie.control.suggest.pace import FEW_KEYS, TARGET, Width, narrower

SECOND = 1_000_000_000


def cost(rate: str, burst: str) -> Cost:
    return Limit(name="x", key="src", rate=rate, burst=burst).cost


def dropped_by_the_limiter(found: Seen, plan: Cost, key: int) -> int:
    """One packet after the other, by adapters/gcra.py."""
    tat = dropped = 0
    for time, tokens in zip(found.time[found.key == key], found.tokens[found.key == key], strict=True):
        now = (int(time) - int(found.time[0])) * UNITS_A_NS
        took, level = gcra.take(max(0, tat - now), plan, int(tokens))
        dropped += not took
        tat = now + level
    return dropped


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5 * SECOND), st.integers(0, 4), st.integers(1, 3)), max_size=80),
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=4),
)
def test_a_replay_drops_what_the_limiter_would_have(
    packets: list[tuple[int, int, int]], plans: list[tuple[int, int]]
) -> None:
    columns = np.array(packets, np.uint64).reshape(-1, 3)
    found = seen(columns[:, 0], columns[:, 1], columns[:, 2], 1, 1)
    costs = [cost(f"{rate}/s", str(burst)) for rate, burst in plans]
    expected = [[dropped_by_the_limiter(found, plan, key) for key in range(found.count)] for plan in costs]
    assert replay(found, costs).tolist() == expected


def steady(keys: int, a_second: int, seconds: int, busy: int = 0) -> Seen:
    """Keys that send evenly, `busy` of them a hundred times as much."""
    times, names = [], []
    for key in range(keys):
        count = a_second * seconds * (100 if key < busy else 1)
        times.append(np.arange(count, dtype=np.uint64) * np.uint64(seconds * SECOND // count))
        names.append(np.full(count, key, np.uint64))
    time = np.concatenate(times)
    return seen(time, np.concatenate(names), np.ones(len(time), np.uint64), 1, 1)


def test_the_proposal_spares_ordinary_keys_and_stops_the_busy_ones() -> None:
    found = steady(300, 10, 3, busy=3)
    tried = rates(found)
    assert 5 <= min(tried) <= 10
    assert 1000 <= max(tried) <= 2000
    results = outcomes(found, [cost(f"{rate}/s", str(rate)) for rate in tried])
    place = proposed(results)
    assert place is not None
    assert 8 <= tried[place] <= 20
    assert results[place].ordinary == 0
    assert results[place].keys.value == 3
    assert results[place].dropped.value > 0.9 * 3 * 3000


def test_nothing_seen_proposes_nothing() -> None:
    nothing = np.zeros(0, np.uint64)
    found = seen(nothing, nothing, nothing, 1, 1)
    assert (found.count, rates(found), proposed([])) == (0, [], None)


def test_estimates_of_all_keys_hold_their_bounds_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    each = random.integers(0, 20, 20_000)
    inside = 0
    for _ in range(200):
        told = estimate(each[random.random(len(each)) < 1 / 16], 16)
        inside += abs(told.value - each.sum()) <= told.error
    assert inside >= 180
    assert estimate(each, 1).error == 0


@pytest.mark.parametrize("rate", [1, TARGET, 10**5, 10**7, 10**9])
@pytest.mark.parametrize("keys", [1, FEW_KEYS, 10**3, 10**6])
def test_no_more_is_reported_than_can_be_read(rate: int, keys: int) -> None:
    width = narrower(Width(), rate, keys)
    assert rate / width.one_key_in / width.one_packet_in <= TARGET
    assert keys / width.one_key_in >= min(keys, FEW_KEYS)
    assert log2(width.one_key_in).is_integer()
    if rate <= TARGET:
        assert width == Width()


def told(fingerprints: list[int], thin: int = 0) -> dict[str, str]:
    records = np.zeros(len(fingerprints), RECORD)
    records["fingerprint"] = np.array(fingerprints, np.uint64) << np.uint64(16)
    records["thin"], records["tokens"], records["time"] = thin, 1, np.arange(len(records))
    return {"records": base64.b64encode(records.tobytes()).decode()}


def test_keys_that_are_no_longer_reported_are_left_out_whole() -> None:
    found = Gathered()
    found.take(told([0, 1, 2, 3, 0, 1]))
    found.take({"narrowed": {"mask": 1, "thin": 0, "anew": False}})
    found.take(told([0, 2, 1]))
    one = found.seen()
    assert (one.count, len(one.time), one.keys, one.packets) == (2, 5, 2, 1)


def test_what_is_incomplete_is_left_out() -> None:
    found = Gathered()
    found.take(told([0, 0, 0]))
    found.take({"narrowed": {"mask": 0, "thin": 3, "anew": True}})
    found.take(told([0, 0]))
    found.take(told([0], thin=3))
    one = found.seen()
    assert (len(one.time), one.packets) == (1, 4)


def test_memory_is_bounded_by_fewer_keys_or_by_having_seen_enough() -> None:
    many = Gathered(most=1000)
    for turn in range(20):
        many.take(told([turn * 500 + n for n in range(500)]))
    assert len(many.seen().time) <= 1000
    assert not many.enough
    one = Gathered(most=1000)
    one.take(told([7] * 1001))
    assert one.enough
    assert len(one.seen().time) == 1001
