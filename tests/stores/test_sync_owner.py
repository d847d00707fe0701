# SPDX-License-Identifier: Apache-2.0
"""Who may write to a store under a name: a second appliance, one fenced out, one that lets go."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

from support.sync_fixtures import (
    TOKEN,
    Make,
    each_store,  # noqa: F401 pytest finds fixtures by name
    make_appliance,  # noqa: F401 pytest finds fixtures by name
    used,
)
from support.synced import DEADLINE, UNITS, WEB
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control import sync
from valkyrie.control.durable import takeover
from valkyrie.control.durable.document import STATE
from valkyrie.control.durable.opening import make_store


async def test_a_second_appliance_of_the_name_writes_nothing_until_the_first_lets_go(
    make: Make, store: StoreSettings
) -> None:
    one, two = make("one", store), make("two", store, token="b" * 32)
    await used(one)
    await one.turn()
    await two.core.in_turn(two.core.start)
    await two.put_limits(WEB | {"name": "other"})
    await two.sync.refill()
    two.table.fill(4, two.uid("other"), 0)
    two.use(range(4), 60)
    await two.turn()
    assert two.status["state"] == "refused"
    assert "one syncs under" in two.status["problem"]
    assert "standby follow" in two.status["problem"]
    assert two.sync.fenced
    assert any("does not take this appliance's state" in line for line in two.said)
    assert len(await one.kept()) == 8
    two.sync.role_changed()
    assert (two.status["state"], two.status["problem"]) == ("starting", "")
    await one.sync.close()
    await two.turn()
    assert two.status["state"] == "ok"
    assert len(await two.kept()) == 12


async def test_one_that_was_fenced_out_writes_no_more_and_takes_the_name_back_when_it_is_free(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    await used(one)
    await one.turn()
    taker = one.make()
    await taker.start()
    await taker.claim("standby", "c" * 32, takeover=True)
    one.use(range(8), 120)
    await asyncio.sleep(0.1)
    await one.turn()
    await one.turn()
    assert one.status["state"] == "refused"
    assert "standby" in one.status["problem"]
    assert max((await one.kept()).values()) <= 60 * UNITS
    await taker.release("c" * 32)
    await taker.close()
    await one.turn()
    assert one.status["state"] == "ok"
    assert min((await one.kept()).values()) > 115 * UNITS


async def test_a_later_version_in_the_store_is_named_and_nothing_is_written_over_it(
    make: Make, store: StoreSettings
) -> None:
    one = make("one", store)
    later = zstandard.compress(json.dumps({"version": 99}).encode())
    other = one.make()
    await other.start()
    await other.claim("later", TOKEN)
    await other.put_document(STATE, later, TOKEN)
    await used(one)
    await one.turn()
    assert one.status["state"] == "refused"
    assert "later Valkyrie" in one.status["problem"]
    assert "standby follow" not in one.status["problem"]
    assert await other.get_document(STATE) == later
    assert await one.kept() == {}
    await other.close()


async def test_a_damaged_store_is_told_as_such_and_not_as_another_owner(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"no database" * 1000)
    one = make("one", StoreSettings.model_validate({"embedded": {"path": path}}))
    await used(one)
    await one.turn()
    assert "damaged" in one.status["problem"]
    assert not one.sync.fenced
    assert "standby follow" not in one.status["problem"]


async def test_shutdown_writes_the_rest_and_lets_go(make: Make, store: StoreSettings) -> None:
    one = make("one", store, interval=3600)
    await used(one)
    await one.turn()
    one.use(range(8), 120)
    await one.turn()
    await one.sync.close()
    assert min((await one.kept()).values()) > 110 * UNITS
    other = one.make()
    await other.start()
    assert await other.owner() is None
    await other.close()


async def test_other_settings_move_the_state_to_the_store_that_they_name(
    make: Make, store: StoreSettings, tmp_path: Path
) -> None:
    one = make("one", store)
    await used(one)
    await one.turn()
    moved = StoreSettings.model_validate({"name": "new", "embedded": {"path": tmp_path / "other.db"}})
    one.core.settings = one.core.settings.model_copy(update={"store": moved})
    one.sync._due = float("-inf")
    await one.turn()
    assert (one.status["state"], one.status["store"], one.status["name"]) == ("ok", "embedded", "new")
    old, new = one.make(), make_store(moved, "new", NoSecrets())
    await old.start()
    await new.start()
    assert await old.owner() is None
    assert sum([len(piece) async for piece in new.buckets()]) == 8
    await old.close()
    await new.close()


async def test_an_owner_that_fills_a_large_table_is_heard_of_meanwhile(
    make: Make, store: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "BEAT_S", 0.05)
    monkeypatch.setattr(sync, "START_WAIT_S", 1.5)
    one = make("one", store)
    await used(one)
    await one.turn()
    await one.core.close()
    again = make("one", store, unfilled=True)
    works, go_on = again.tables.restore, threading.Event()

    def slow(*given: Any) -> int:
        assert go_on.wait(DEADLINE)
        return works(*given)

    monkeypatch.setattr(again.tables, "restore", slow)
    looker = again.make()
    await looker.start()
    try:
        await again.start()  # goes on without the buckets
        assert not again.tables.restored
        owner = await looker.owner()
        assert owner is not None
        assert owner.silent_s < 1
    finally:
        go_on.set()
        await looker.close()
    async with again.running():
        await again.until(lambda: len(again.tables.restored) == 8)
