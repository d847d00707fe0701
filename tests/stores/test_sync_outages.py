# SPDX-License-Identifier: Apache-2.0
"""The sync while something fails: servers gone and back, hung, emptied; a slow compiler, a bug."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.servers import Server, redis_server, valkey_server
from support.sync_fixtures import (
    Make,
    each_store,  # noqa: F401 pytest finds fixtures by name
    make_appliance,  # noqa: F401 pytest finds fixtures by name
    settings_of,
    used,
)
from support.synced import UNITS, WEB
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control import abi, sync
from valkyrie.control.durable.document import STATE


@pytest.fixture(params=["redis", "valkey"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that a test may kill and empty."""
    with (redis_server if request.param == "redis" else valkey_server)() as made:
        yield made


async def test_a_server_gone_and_back_under_load_costs_neither_memory_nor_what_was_used(
    make: Make, own_server: Server
) -> None:
    count = 4000
    one = make("one", settings_of(own_server), sets=count // abi.WAYS)
    await used(one, count)
    async with one.running():
        await one.rounds()
        own_server.kill()
        await one.until(lambda: one.status["state"] == "away")
        for _ in range(20):
            one.use(range(count), 300)
            await asyncio.sleep(0.01)
        assert one.sync._rounds is not None
        assert one.sync._rounds.shadow.told.nbytes == 8 * count
        own_server.start()
        back = time.monotonic()
        await one.until(lambda: one.status["state"] == "ok" and one.status["written"] >= 2 * count)
        await one.rounds(1)
        assert time.monotonic() - back < 10
    kept = await one.kept()
    assert len(kept) == count
    assert min(kept.values()) > 280 * UNITS
    assert sum("is away" in line for line in one.said) == 1
    assert any("is back" in line for line in one.said)


async def test_a_hung_server_delays_neither_the_start_nor_the_end(make: Make, own_server: Server) -> None:
    one = make("one", settings_of(own_server), unfilled=True)
    own_server.stop()
    try:
        began = time.monotonic()
        await one.start()
        assert time.monotonic() - began < 4
        await one.put_limits(WEB)
        async with one.running():
            await one.until(lambda: one.status["state"] == "away")
        began = time.monotonic()
        await one.sync.close()
        assert time.monotonic() - began < 4
    finally:
        own_server.cont()


async def test_a_new_table_is_filled_late_when_the_server_was_away_at_start(
    make: Make, own_server: Server
) -> None:
    one = make("one", settings_of(own_server))
    await used(one)
    await one.turn()
    await one.close()
    own_server.stop()
    again = make("one", settings_of(own_server), unfilled=True)
    await again.start()
    assert again.tables.restored == []
    own_server.cont()
    async with again.running():
        await again.until(lambda: any("8 of 8 buckets restored" in line for line in again.said))
    assert len(again.tables.restored) == 8


async def test_a_server_that_lost_its_data_is_told_everything_anew(make: Make, own_server: Server) -> None:
    one = make("one", settings_of(own_server))
    await used(one)
    async with one.running():
        await one.rounds()
        own_server.run("FLUSHALL")
        await one.until(lambda: one.status["written"] >= 16)
        await one.rounds(1)
    assert len(await one.kept()) == 8
    other = one.make()
    await other.start()
    assert await other.get_document(STATE) is not None
    await other.close()
    assert any("had forgotten this appliance" in line for line in one.said)


async def test_a_bucket_of_another_type_is_told_and_tried_again_in_peace(
    make: Make, own_server: Server
) -> None:
    one = make("one", settings_of(own_server))
    await used(one)
    async with one.running():
        await one.rounds()
        (key, *_) = own_server.run("KEYS", "vk:*:b:*")
        own_server.run("DEL", key)
        own_server.run("RPUSH", key, "x")
        one.use(range(8), 600)
        with contextlib.suppress(AssertionError):  # a store may leave out the one bucket and write the others
            await one.until(lambda: one.status["state"] == "refused", 2)
        said = len(one.said)
        await asyncio.sleep(0.5)
        assert len(one.said) <= said + 1
        own_server.run("DEL", key)
        await one.until(lambda: one.status["state"] == "ok")
        await one.rounds()
    assert min((await one.kept()).values()) > 500 * UNITS


async def test_a_bug_at_the_start_does_not_keep_the_sync_from_working_later(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    works = one.sync._make

    def fails(settings: StoreSettings, appliance: str) -> Any:
        raise RuntimeError("a bug")

    one.sync._make = fails
    await one.start()
    one.sync._make = works
    with pytest.raises(RuntimeError):  # is seen once, by whoever runs it and begins again
        await one.sync.run()
    async with one.running():
        await one.until(lambda: one.status["state"] == "ok")


async def test_a_compiler_that_takes_longer_than_a_store_may_is_waited_for(
    make: Make, store: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make("one", store)
    await used(one)
    await one.turn()
    await one.close()
    again = make("one", store, unfilled=True)
    works = again.tables.restore

    def slow(*given: Any) -> int:
        again.tables.building = True
        time.sleep(1.5)
        again.tables.building = False
        return works(*given)

    monkeypatch.setattr(again.tables, "restore", slow)
    monkeypatch.setattr(sync, "START_WAIT_S", 1.0)
    await again.start()
    assert len(again.tables.restored) == 8
    assert not again.tables.unfilled
