# SPDX-License-Identifier: Apache-2.0
"""Top talkers: bounded sketches that a flood of newcomers neither fools nor slows down."""

from collections import Counter
from ipaddress import ip_address

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.enums import Reason
from valkyrie.control.service.sketch import Sketch, odd_words
from valkyrie.control.service.talkers import GROUPS, HALF_LIFE_S, SIZE, SIZE_A_LIMIT, Talkers

NAMES = {7: "web", 8: "dns"}
BATCH = 4096


class Time:
    now = 5000.0


def talkers_at(time: Time) -> Talkers:
    return Talkers(lambda: time.now, 1)


def drops(
    sources: NDArray[np.uint32], slot: int = 7, reason: Reason = Reason.LIMIT, *, shadow: bool = False
) -> NDArray[np.void]:
    """Events of IPv4 sources, given as numbers."""
    events = np.zeros(len(sources), abi.EVENT)
    mapped = np.zeros((len(sources), 4), ">u4")
    mapped[:, 2], mapped[:, 3] = 0xFFFF, sources
    events["src"] = mapped.view(np.uint64)
    events["slot"], events["reason"], events["shadow"] = slot, reason, shadow
    return events


def number(text: str) -> int:
    return int(ip_address(text))


def of(*sources: str) -> NDArray[np.uint32]:
    return np.array([number(source) for source in sources], np.uint32)


def test_a_million_forged_sources_push_out_nobody_who_is_dropped_often() -> None:
    random = np.random.default_rng(7)
    talkers = talkers_at(Time())
    heavy = of(*(f"10.0.0.{n}" for n in range(20)))
    true: Counter[str] = Counter()
    for start in range(0, 1_000_000, BATCH):
        forged = np.arange(start, start + BATCH, dtype=np.uint32) * np.uint32(2654435761) | np.uint32(1 << 31)
        loud = random.choice(heavy, 400)
        true.update(str(ip_address(int(one))) for one in loud)
        talkers.add(drops(random.permutation(np.concatenate([forged, loud]))), NAMES, 3)
    for limit, size in ((None, SIZE), ("web", SIZE_A_LIMIT)):
        found = talkers.top(20, limit)
        assert {row["key"] for row in found} == set(true)
        for row in found:
            assert 3 * true[row["key"]] - row["error"] <= row["dropped"] <= 3 * true[row["key"]]
            assert row["error"] <= 3 * (1_000_000 + BATCH + true.total()) / (size + 1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 40), max_size=60), st.sampled_from([1.0, 2.0, 10.0])), max_size=30
    ),
    st.integers(1, 12),
)
def test_no_count_is_too_high_and_none_is_too_low_by_more_than_it_says(
    batches: list[tuple[list[int], float]], size: int
) -> None:
    true: Counter[int] = Counter()
    sketch = Sketch(size, odd_words(3, 2))
    for keys, weight in batches:
        rows = np.array([(key, 7 * key) for key in keys], np.uint64).reshape(-1, 2)
        sketch.add(rows, weight)
        for key in keys:
            true[key] += int(weight)
    held = {int(key[0]): count for key, count in sketch.largest(size + 1)}
    assert len(held) <= size
    assert sketch.short <= true.total() / (size + 1)
    for key, count in true.items():
        assert count - sketch.short <= held.get(key, 0) <= count


def test_what_a_shadow_would_have_dropped_is_not_counted_as_dropped() -> None:
    talkers = talkers_at(Time())
    talkers.add(drops(of("192.0.2.1", "192.0.2.1", "192.0.2.2"), shadow=True), NAMES, 10)
    talkers.add(drops(of("192.0.2.1")), NAMES, 10)
    told = [(row["key"], row["limit"], row["dropped"], row["would_drop"]) for row in talkers.top(9)]
    assert sorted(told) == [
        ("192.0.2.1", "web", 0, 20),
        ("192.0.2.1", "web", 10, 0),
        ("192.0.2.2", "web", 0, 10),
    ]
    assert told[0] == ("192.0.2.1", "web", 0, 20)


def test_a_storm_on_one_limit_hides_no_talker_of_another() -> None:
    talkers = talkers_at(Time())
    talkers.add(drops(of("192.0.2.1", "192.0.2.1"), slot=8), NAMES, 1)
    for start in range(0, 40 * BATCH, BATCH):
        talkers.add(drops(np.arange(start, start + BATCH, dtype=np.uint32).repeat(2)), NAMES, 1)
    assert [row["limit"] for row in talkers.top(SIZE)].count("dns") == 0
    (row,) = talkers.top(5, "dns")
    assert (row["key"], row["dropped"], row["error"]) == ("192.0.2.1", 2, 0)


def test_a_source_dropped_by_no_limit_counts_under_the_reason() -> None:
    talkers = talkers_at(Time())
    talkers.add(drops(of("192.0.2.9"), abi.NO_SLOT, Reason.BAN), NAMES, 2)
    assert [(row["limit"], row["dropped"]) for row in talkers.top(5)] == [("ban", 2)]


def test_the_past_fades_by_half_and_what_is_forgotten_makes_room() -> None:
    time = Time()
    talkers = talkers_at(time)
    talkers.add(drops(of(*["192.0.2.1"] * 100)), NAMES, 1)
    talkers.add(drops(np.arange(200, dtype=np.uint32)), NAMES, 1)
    time.now += 2 * HALF_LIFE_S
    assert [(row["key"], row["dropped"]) for row in talkers.top(SIZE)] == [("192.0.2.1", 25)]
    time.now += 10 * HALF_LIFE_S
    assert talkers.top(SIZE) == talkers.top(SIZE, "web") == []


def test_limits_that_come_and_go_by_the_thousand_take_no_more_room() -> None:
    talkers = talkers_at(Time())
    for turn in range(2 * GROUPS):
        talkers.add(drops(of("192.0.2.1")), {7: f"limit{turn}"}, 1)
    assert len(talkers._numbers) <= GROUPS
    assert len(talkers._limits) <= GROUPS
    assert talkers.top(1, f"limit{2 * GROUPS - 1}")[0]["dropped"] == 1
