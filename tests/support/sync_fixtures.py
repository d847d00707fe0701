# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests of the sync: each store in turn, appliances that a test makes, a limit in use.

Tests import them, and ask for them as `store` and `make`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from support.servers import Server
from support.synced import WEB, Appliance
from valkyrie.adapters.settings import StoreSettings

TOKEN = "a" * 32
Make = Callable[..., Appliance]


def settings_of(server: Server) -> StoreSettings:
    return StoreSettings.model_validate(
        {"mode": server.kind, server.kind: {"url": server.url, "timeout_ms": 500}}
    )


@pytest.fixture(name="store", params=["embedded", "redis", "valkey"])
def each_store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    if request.param == "embedded":
        return StoreSettings.model_validate({"embedded": {"path": tmp_path / "store.db"}})
    return settings_of(request.getfixturevalue("redis7" if request.param == "redis" else "valkey9"))


@pytest.fixture(name="make")
async def make_appliance(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Appliance] = []

    def one(name: str, store: StoreSettings, **given: Any) -> Appliance:
        made.append(Appliance(tmp_path / name, store, **given))
        return made[-1]

    yield one
    for appliance in made:
        await appliance.close()


async def used(appliance: Appliance, count: int = 8) -> None:
    """A limit in force with so many buckets, a minute short of full."""
    await appliance.start()
    await appliance.put_limits(WEB)
    appliance.table.fill(count, appliance.uid(), 0)
    appliance.use(range(count), 60)
