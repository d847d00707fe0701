# SPDX-License-Identifier: Apache-2.0
"""Names of many buckets at once are those that adapters/naming.py gives one by one, and come back."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.table import Table, address
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.naming import BANS, CALLERS, name_of
from valkyrie.control import abi
from valkyrie.control.cost import MAX_TAU
from valkyrie.control.dataplane.call_entry import entry_of
from valkyrie.control.dataplane.keyname import Record
from valkyrie.control.durable.changes import look
from valkyrie.control.durable.fill import single_ended
from valkyrie.control.durable.names import Target, entries_of, groups_of, names, targets_of
from valkyrie.control.key import ID, KeySpec
from valkyrie.control.limits import Desired, Limit, Override
from valkyrie.control.service.world import World
from valkyrie.control.state.slots import Allotment, allot

GROUPS = {1: "web", 300: "dns.amp", abi.UID_BAN: BANS, abi.UID_CALL: CALLERS}
TARGETS = {name: Target(uid, KeySpec(src4=32, src6=64), 1000) for uid, name in GROUPS.items()}
RECORDS = st.builds(Record, st.integers(0, 65535), st.binary(min_size=16, max_size=16), st.booleans())


@given(st.lists(st.tuples(st.sampled_from(sorted(GROUPS)), RECORDS), min_size=1, max_size=16))
def test_names_are_those_of_naming_and_lead_back_to_the_bucket(buckets: list[tuple[int, Record]]) -> None:
    table = Table(2)
    for place, (uid, record) in enumerate(buckets):
        table.put(place, uid, record, 1)
    keys = look(table, np.arange(len(buckets), dtype=np.uint32)).keys
    made = names(keys, GROUPS)
    assert made == [name_of(GROUPS[uid], record) for uid, record in buckets]
    entries = entries_of([BucketLevel(str(name), 7) for name in made], TARGETS)
    assert [
        (int(one["uid"]), Record(int(one["dport"]), one["addr"].tobytes(), bool(one["pair6"])))
        for one in entries
    ] == buckets
    assert set(entries["level"].tolist()) == {7}


def test_a_bucket_of_no_known_limit_has_no_name() -> None:
    table = Table(1)
    table.put(0, 9, address(1), 1)
    assert names(look(table, np.array([0], np.uint32)).keys, GROUPS) == [None]


@given(st.lists(st.text(max_size=45)))
def test_names_that_are_none_are_passed_over(texts: list[str]) -> None:
    good = BucketLevel(name_of("web", address(1)), 5)
    hostile = [BucketLevel(f"web:{text}", 5) for text in texts]
    hostile += [BucketLevel("web:" + "z" * 36, 5), BucketLevel("web:" + " " * 36, 5)]
    hostile += [BucketLevel("", 5), BucketLevel("gone:" + "0" * 36, 5), BucketLevel(good.name, 0)]
    whole = [one for one in hostile if len(entries_of([one], TARGETS)) == 1]
    assert len(entries_of([*hostile, good], TARGETS)) == 1 + len(whole)


def test_levels_are_cut_to_what_the_limits_in_force_let_anybody_wait() -> None:
    world = _world()
    targets = targets_of(world)
    levels = [BucketLevel(name_of(group, address(1)), 1 << 61) for group in ("web", "bans", BANS, CALLERS)]
    found = dict(
        zip(entries_of(levels, targets)["uid"].tolist(), entries_of(levels, targets)["level"], strict=True)
    )
    assert found[targets["web"].uid] == world.deepest("web") > world.limits["web"].cost.tau
    assert found[abi.UID_BAN] == 600 * 64 * 10**9
    assert found[abi.UID_CALL] == 1 << 61 < MAX_TAU
    assert groups_of(world)[targets["web"].uid] == "web"


def _world() -> World:
    desired = Desired.of(
        [
            Limit(name="web", key="src", rate="10/s", burst="20"),
            Limit(name="bans", key="src", rate="10/s", action="ban", ban_for="10m"),
        ],
        [Override(limit="web", prefix="192.0.2.0/24", rate="1/s", burst="50")],
    )
    return World(desired, {}, allot(Allotment(), {limit.name: limit.key for limit in desired.limits}))


def test_names_of_100_000_buckets_are_made_in_well_under_a_second() -> None:
    table = Table(12_500)
    table.fill(100_000, 1, np.uint64(1))
    keys = look(table, np.arange(100_000, dtype=np.uint32)).keys
    began = time.perf_counter()
    made = names(keys, GROUPS)
    assert time.perf_counter() - began < 0.5
    assert len(set(made)) == 100_000


@given(st.lists(st.builds(Record, st.integers(0, 65535), st.binary(min_size=16, max_size=16)), min_size=1))
def test_entries_for_the_kernel_are_those_that_are_made_one_by_one(records: list[Record]) -> None:
    levels = [BucketLevel(name_of("web", record), 7) for record in records]
    for spec in (ID, KeySpec(), KeySpec(src4=32, src6=64), KeySpec(dst4=24, dst6=64, dport=True)):
        entries = entries_of(levels, {"web": Target(1, spec, 1000)})
        one_by_one = b"".join(entry_of(record, spec, 7) for record in records)
        assert single_ended(entries, spec).tobytes() == one_by_one
