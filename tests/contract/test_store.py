# SPDX-License-Identifier: Apache-2.0
"""What every store says of itself, and how it begins and ends."""

import pytest

from support.contract import APPLIANCE, Maker
from valkyrie.adapters.errors import ConsistencyError, StoreConfigurationError, StoreError
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.store import Feature, StoreAdapter
from valkyrie.control.errors import InvalidInput

LIMIT = Limit.of("own", "5/h", "5")


async def test_it_is_healthy(store: StoreAdapter) -> None:
    health = await store.health_check()
    assert health.ok, health.detail
    assert health.detail
    assert 0 < health.latency_ms < 10_000


async def test_it_has_a_name_that_its_decisions_carry(store: StoreAdapter) -> None:
    assert store.backend_name in ("redis", "valkey", "embedded", "yggdrasil")
    decision = await store.try_consume("k", limit=LIMIT)
    assert decision.store == store.backend_name
    assert not decision.degraded


async def test_it_says_what_it_can_do(store: StoreAdapter) -> None:
    assert store.supports_feature(Feature.DECLARED_LIMITS)
    for feature in Feature:
        assert isinstance(store.supports_feature(feature), bool)


async def test_stats_count_operations_and_errors(store: StoreAdapter) -> None:
    for _ in range(3):
        await store.get("k")
    await store.set("k", b"x")
    with pytest.raises(ConsistencyError):
        await store.increment("k")
    with pytest.raises(InvalidInput):
        await store.get("")
    stats = store.stats()
    assert stats.backend == store.backend_name
    assert stats.connections >= 1
    gets, adds = stats.operations["get"], stats.operations["increment"]
    assert gets.count >= 3
    assert gets.errors == 0
    assert (adds.count, adds.errors) == (1, 1)
    assert 0 < gets.p50_ms <= gets.p95_ms <= gets.p99_ms < 10_000


async def test_nothing_is_flushed_unless_it_is_allowed(store: StoreAdapter) -> None:
    await store.set("k", b"v")
    with pytest.raises(StoreConfigurationError):
        await store.flush_all()
    assert await store.get("k") == b"v"


async def test_flushing_deletes_all_of_this_appliance_and_none_of_others(maker: Maker) -> None:
    async with (
        maker(allow_flush=True) as store,
        maker(allow_flush=True, appliance=f"{APPLIANCE}2") as other,
        maker(allow_flush=True, appliance=f"{APPLIANCE}.2") as third,
    ):
        for each in (store, other, third):
            await each.flush_all()  # what a store tried out when it started
            await each.set("k", b"v")
            for name in ("a", "b", "c"):
                await each.try_consume(name, limit=LIMIT)
        assert await store.flush_all() == 4
        assert await store.get("k") is None
        assert (await store.try_consume("a", 0, limit=LIMIT)).remaining == 5
        for each in (other, third):
            assert await each.get("k") == b"v"
            assert (await each.try_consume("a", 0, limit=LIMIT)).remaining == 4
        assert await store.flush_all() == 0


async def test_closing_twice_is_as_good_as_once(maker: Maker) -> None:
    store = maker()
    await store.start()
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.get("k")


async def test_an_adapter_that_never_started_can_be_closed(maker: Maker) -> None:
    await maker().close()
