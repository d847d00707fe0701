# SPDX-License-Identifier: Apache-2.0
"""What of a table is told to a store: all that matters, at once, and never the same twice."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.table import Table, address
from valkyrie.control import abi
from valkyrie.control.durable.changes import PIECE_SETS, Owed, Shadow, look, owed
from valkyrie.control.durable.names import names

UNITS = 1_000_000_000 << abi.TIME_SHIFT  # a second
INTERVAL = UNITS
GROUPS = {1: "web"}


class Store:
    """What a round leaves in a store whose clock is the table's."""

    def __init__(self) -> None:
        self.tats: dict[str, int] = {}
        self.writes = 0

    def round(self, table: Table, shadow: Shadow, now: int) -> Owed:
        found = owed(table.buckets["tat"], shadow, now + INTERVAL, INTERVAL)
        dropped = look(table, found.drop)
        for name in names(dropped.keys, GROUPS):
            self.tats.pop(str(name), None)
        shadow.put(dropped.places, 0)
        written = look(table, found.write)
        for name, tat in zip(names(written.keys, GROUPS), written.tats.tolist(), strict=True):
            self.tats[str(name)] = max(tat, self.tats.get(str(name), 0))
            self.writes += 1
        shadow.put(written.places, written.tats)
        return found


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.integers(0, 15), st.integers(1, 8 * UNITS)),
        st.tuples(st.just("undo"), st.integers(0, 15), st.integers(1, 8 * UNITS)),
        st.tuples(st.just("reset"), st.integers(0, 15), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 5 * UNITS)),
        st.tuples(st.just("round"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(ACTS)
def test_what_a_store_lacks_is_at_most_an_interval_and_what_was_spent_since(
    acts: list[tuple[str, int, int]],
) -> None:
    table, shadow, store = Table(2), Shadow(2), Store()
    for place in range(16):
        table.put(place, 1, address(place), 0)
    now = 100 * UNITS
    spent = dict.fromkeys(range(16), 0)
    for act, place, amount in acts:
        if act == "spend":
            table.set_tat(place, max(table.tat(place), now) + amount)
            spent[place] += amount
        elif act == "undo":
            table.set_tat(place, max(table.tat(place) - amount, now))
        elif act == "reset":
            table.set_tat(place, now)
        elif act == "wait":
            now += amount
        else:
            store.round(table, shadow, now)
            spent = dict.fromkeys(range(16), 0)
            for at in range(16):
                kept = store.tats.get(_name(at), 0)
                assert kept <= max(table.tat(at) + INTERVAL, now + INTERVAL), "stricter than the kernel"
        for at in range(16):
            kept = max(0, store.tats.get(_name(at), 0) - now)
            assert max(0, table.tat(at) - now) - kept <= INTERVAL + spent[at]


def _name(place: int) -> str:
    (name,) = names(look(_ONE, np.array([place], np.uint32)).keys, GROUPS)
    return str(name)


_ONE = Table(2)
for _place in range(16):
    _ONE.put(_place, 1, address(_place), 0)


def test_what_did_not_change_is_not_told_again() -> None:
    table, shadow, store = Table(2), Shadow(2), Store()
    table.put(3, 1, address(1), 50 * UNITS)
    assert len(store.round(table, shadow, 10 * UNITS).write) == 1
    assert len(store.round(table, shadow, 11 * UNITS)) == 0
    table.set_tat(3, 51 * UNITS)
    assert len(store.round(table, shadow, 12 * UNITS).write) == 1
    assert store.writes == 2


def test_a_bucket_that_is_full_within_the_interval_is_not_told() -> None:
    table, shadow, store = Table(1), Shadow(1), Store()
    table.put(0, 1, address(1), 10 * UNITS + INTERVAL)
    table.put(1, 1, address(2), 10 * UNITS + INTERVAL + 1)
    found = store.round(table, shadow, 10 * UNITS)
    assert found.write.tolist() == [1]


def test_a_bucket_told_of_and_reset_is_dropped_and_written_anew_when_it_is_used_again() -> None:
    table, shadow, store = Table(1), Shadow(1), Store()
    table.put(0, 1, address(1), 100 * UNITS)
    store.round(table, shadow, 10 * UNITS)
    table.set_tat(0, 20 * UNITS)
    store.round(table, shadow, 12 * UNITS)
    assert list(store.tats.values()) == [20 * UNITS]
    table.set_tat(0, 13 * UNITS)
    found = store.round(table, shadow, 13 * UNITS)
    assert (len(found.drop), store.tats) == (1, {})
    assert len(store.round(table, shadow, 14 * UNITS)) == 0


def test_a_newcomer_to_a_place_is_told_though_another_was_told_there() -> None:
    table, shadow, store = Table(1), Shadow(1), Store()
    table.put(0, 1, address(1), 100 * UNITS)
    store.round(table, shadow, 10 * UNITS)
    table.put(0, 1, address(2), 101 * UNITS)
    store.round(table, shadow, 11 * UNITS)
    assert sorted(store.tats.values()) == [100 * UNITS, 101 * UNITS]


def test_a_place_that_changes_hands_while_it_is_looked_at_stays_owed() -> None:
    table, shadow = Table(1), Shadow(1)
    table.put(0, 1, address(1), 100 * UNITS)
    table.buckets["fingerprint"][0, 0] = 0
    found = owed(table.buckets["tat"], shadow, 11 * UNITS, INTERVAL)
    assert len(look(table, found.write)) == 0
    table.buckets["fingerprint"][0, 0] = 7
    assert len(look(table, owed(table.buckets["tat"], shadow, 11 * UNITS, INTERVAL).write)) == 1


def test_sets_whose_turn_it_is_are_told_again_and_no_others() -> None:
    table, shadow = Table(2 * PIECE_SETS), Shadow(2 * PIECE_SETS)
    tats = table.buckets["tat"]
    tats[:, 0] = 100 * UNITS
    tats[:, 1] = 5 * UNITS
    shadow.all_told(tats)
    again = range(PIECE_SETS - 2, PIECE_SETS + 1)
    found = owed(tats, shadow, 11 * UNITS, INTERVAL, again)
    assert [place // abi.WAYS for place in found.write.tolist()] == list(again)
    assert {place % abi.WAYS for place in found.write.tolist()} == {0}


def test_100_000_changed_of_a_million_are_found_in_well_under_100_ms_and_8_bytes_a_bucket() -> None:
    sets = 1 << 17
    table, shadow = Table(sets), Shadow(sets)
    table.fill(sets * abi.WAYS, 1, np.uint64(100 * UNITS))
    tats = table.buckets["tat"]
    shadow.all_told(tats)
    changed = np.arange(0, 1_000_000, 10)
    tats[changed // abi.WAYS, changed % abi.WAYS] += np.uint64(UNITS)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        found = owed(tats, shadow, 50 * UNITS, INTERVAL)
        took.append(time.perf_counter() - began)
        assert found.write.tolist() == changed.tolist()
    assert min(took) < 0.1
    assert shadow.told.nbytes == 8 * sets * abi.WAYS
