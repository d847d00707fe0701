# SPDX-License-Identifier: Apache-2.0
"""What the sync keeps in real stores and gives back: levels, counters, limits; also over a cluster."""

from __future__ import annotations

import json
import time
from pathlib import Path

import zstandard

from support.clusters import Cluster
from support.servers import Kind
from support.sync_fixtures import (
    TOKEN,
    Make,
    each_store,  # noqa: F401 pytest finds fixtures by name
    make_appliance,  # noqa: F401 pytest finds fixtures by name
    used,
)
from support.synced import UNITS, WEB
from support.table import address
from valkyrie.adapters.books import StaticBook, limit_of
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.naming import BANS, name_of
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control import abi
from valkyrie.control.dataplane.keyname import record_of
from valkyrie.control.durable.document import COUNTERS, STATE
from valkyrie.control.durable.opening import backend_of


async def test_what_matters_is_written_under_its_name_with_its_level(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    await used(one)
    one.table.put(100, abi.UID_BAN, address(7), time.monotonic_ns() * 64 + 600 * UNITS)
    one.table.put(101, one.uid(), address(8), time.monotonic_ns() * 64 + UNITS // 100)
    await one.turn()
    kept = await one.kept()
    assert len(kept) == 9
    assert 599 * UNITS < kept[name_of(BANS, address(7))] <= 600 * UNITS
    assert all(59 * UNITS < level <= 60 * UNITS for name, level in kept.items() if name.startswith("web:"))
    assert one.status["state"] == "ok"
    assert (one.status["owed"], one.status["written"]) == (0, 9)


async def test_a_new_table_is_filled_before_packets_come_and_levels_and_counters_are_those_kept(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    await used(one)
    one.core.engine.figures().limits["passed"][one.core.world.allotment.slots["web"].slot] = 5
    await one.turn()
    await one.close()
    again = make("one", store, unfilled=True)
    await again.start()
    assert not again.tables.unfilled
    assert len(again.tables.restored) == 8
    assert {uid for uid, _ in again.tables.restored} == {again.uid()}
    assert all(50 * UNITS < level <= 60 * UNITS for _, level in again.tables.restored)
    slot = again.core.world.allotment.slots["web"].slot
    assert again.table.limit_stats["passed"][:, slot].tolist() == [5, 0]


async def test_a_lost_state_gets_limits_with_their_numbers_and_it_is_audited(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    await used(one)
    await one.turn()
    await one.close()
    other = make("other", store)
    await other.start()
    assert other.core.world.desired == one.core.world.desired
    assert other.core.world.allotment == one.core.world.allotment
    assert other.core.serial == one.core.serial
    (entry,) = other.core.state.audit(5)
    assert (entry.action, entry.actor.user) == ("restore", "valkyried")
    assert any("this machine's state knew nothing: 1 limits" in line for line in other.said)


async def test_a_state_that_knows_something_is_not_touched(make: Make, store: StoreSettings) -> None:
    one = make("one", store)
    await used(one)
    await one.turn()
    await one.close()
    other = make("other", store)
    await other.core.in_turn(other.core.start)
    await other.put_limits(WEB | {"name": "mine"})
    await other.close()
    other = make("other", store, unfilled=True)
    await other.start()
    await other.turn()
    assert list(other.core.world.limits) == ["mine"]
    assert other.tables.restored == []


async def test_a_document_of_an_earlier_form_is_restored(make: Make, store: StoreSettings) -> None:
    one = make("one", store)
    earlier = {"version": 1, "appliance": "edge", "serial": 9, "policy": {"limits": [WEB]}}
    other = one.make()
    await other.start()
    await other.claim("earlier", TOKEN)
    await other.put_document(STATE, zstandard.compress(json.dumps(earlier).encode()), TOKEN)
    level = BucketLevel(name_of("web", address(1)), 30 * UNITS)
    await other.write_buckets([level, BucketLevel(name_of("gone", address(1)), 30 * UNITS)], TOKEN)
    await other.close()
    one = make("fresh", store, unfilled=True)
    await one.start()
    assert (list(one.core.world.limits), one.core.serial) == (["web"], 9)
    ((uid, restored),) = one.tables.restored
    assert uid == one.uid()
    assert 25 * UNITS < restored <= 30 * UNITS


async def test_levels_deeper_than_the_limit_now_lets_a_bucket_be_are_cut_at_restore(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    await used(one)
    one.use(range(8), 3600 * 5)
    await one.turn()
    await one.put_limits(WEB | {"rate": "1/s"})
    await one.close()
    again = make("one", store, unfilled=True)
    await again.start()
    assert {level for _, level in again.tables.restored} == {5 * UNITS}


async def test_buckets_of_a_limit_that_is_deleted_are_dropped_though_it_comes_again_at_once(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    await used(one)
    await one.turn()
    uid = one.uid()
    await one.put_limits()
    await one.put_limits(WEB)
    one.use(range(8), 0)  # the purge of the old uid
    one.table.put(300, one.uid(), address(9), time.monotonic_ns() * 64 + 60 * UNITS)
    assert one.uid() != uid
    one.sync._due = 0.0
    await one.turn()
    assert list(await one.kept()) == [name_of("web", address(9))]


async def test_bucket_levels_do_not_follow_the_wall_clock(make: Make, store: StoreSettings) -> None:
    one = make("one", store)
    await used(one)
    object.__setattr__(one.core.clock, "wall", lambda: 1e9)
    await one.turn()
    object.__setattr__(one.core.clock, "wall", lambda: 4e9)
    assert all(59 * UNITS < level <= 60 * UNITS for level in (await one.kept()).values())


async def test_a_cluster_keeps_it_all_and_gives_it_back(
    make: Make, kind: Kind, resp_cluster: Cluster
) -> None:
    settings = {"url": resp_cluster.url, "cluster_mode": True, "timeout_ms": 2000}
    store = StoreSettings.model_validate({"mode": kind, kind: settings})
    one = make("one", store, sets=128)
    await used(one, 1000)
    await one.turn()
    assert (one.status["state"], one.status["written"]) == ("ok", 1000), one.status
    await one.close()
    again = make("again", store, unfilled=True)
    await again.start()
    assert list(again.core.world.limits) == ["web"]
    assert len(again.tables.restored) == 1000


async def test_an_application_that_asks_the_store_goes_on_with_the_kernels_buckets(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    await one.start()
    await one.put_limits(WEB)
    limit = one.core.world.limits["web"]
    spent = limit.cost.of(4)
    one.table.put(5, one.uid(), record_of("192.0.2.1", limit.key_spec), time.monotonic_ns() * 64 + spent)
    await one.turn()
    around = Around("edge", StaticBook([limit_of(limit, (), one.uid())]), NoSecrets(), Path())
    application = StoreFactory().create(backend_of(store), store, around)
    async with application:
        first = await application.try_consume("192.0.2.1", limit="web")
        second = await application.try_consume("192.0.2.1", limit="web")
        other = await application.try_consume("192.0.2.2", limit="web")
    assert (first.allowed, first.remaining, second.allowed) == (True, 0, False)
    assert (other.allowed, other.remaining) == (True, 4)
    kept = await one.kept()
    await one.turn()
    assert (await one.kept()).keys() == kept.keys()
    assert max((await one.kept()).values()) > limit.cost.of(4)


async def test_damaged_counters_keep_no_buckets_from_being_restored(make: Make, store: StoreSettings) -> None:
    one = make("one", store)
    await used(one)
    await one.turn()
    other = one.make()
    await other.start()
    await other.put_document(COUNTERS, b"nonsense", TOKEN)
    await other.close()
    await one.core.close()
    again = make("one", store, unfilled=True)
    await again.start()
    assert len(again.tables.restored) == 8
    await again.turn()
    assert again.status["state"] == "ok"
