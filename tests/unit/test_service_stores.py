# SPDX-License-Identifier: Apache-2.0
"""The daemon's stores over a data plane in memory: started behind its back, changed by a reload, closed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.fake_engine import FakeEngine
from valkyrie.adapters.errors import StoreUnavailable
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.audit import DAEMON
from valkyrie.control.config import Settings
from valkyrie.control.errors import InvalidInput, NotFound
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.service import Service
from valkyrie.control.state.store import State

WEB = {"match": "", "key": "src", "rate": "1/h", "burst": "5"}


async def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.01)


def store_settings(folder: Path, **more: Any) -> StoreSettings:
    return StoreSettings.model_validate({"name": "edge", "embedded": {"path": folder / "store.db"}, **more})


@asynccontextmanager
async def served(folder: Path, **more: Any) -> AsyncIterator[Service]:
    settings = Settings(
        state_dir=folder / "state", socket=folder / "v.sock", store=store_settings(folder, **more)
    )
    service = Service(settings, State.open(settings.database, bytes), FakeEngine("eth1"), Clock())
    await service.start()
    running = asyncio.ensure_future(service.stores.run())
    try:
        yield service
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await service.close()


def in_use(service: Service) -> str | None:
    found: str | None = service.stores.status()["in_use"]
    return found


async def test_before_the_stores_have_started_a_call_is_refused_and_status_says_so(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", store=store_settings(tmp_path))
    service = Service(settings, State.open(settings.database, bytes), FakeEngine(), Clock())
    assert service.stores.status()["problem"] == "starting"
    with pytest.raises(StoreUnavailable, match="starting"):
        await service.stores.consume("u", 1, None, "1/s", None)
    await service.close()


async def test_declared_limits_are_consumed_as_they_are_now(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        await until(lambda: in_use(service) == "embedded")
        with pytest.raises(NotFound):
            await service.stores.consume("192.0.2.1", 1, "web", None, None)
        await service.limits.put(DAEMON, "web", WEB)
        assert (await service.stores.consume("192.0.2.1", 4, "web", None, None))["remaining"] == 1
        entries = [{"prefix": "192.0.2.0/24", "rate": "1/h", "burst": "9"}]
        await service.limits.put_overrides(DAEMON, "web", entries)
        assert (await service.stores.consume("192.0.2.1", 4, "web", None, None))["remaining"] == 1
        refused = await service.stores.consume("192.0.2.1", 10, "web", None, None)
        assert (refused["allowed"], refused["retry_after"]) == (False, None)


@pytest.mark.parametrize(
    ("limit", "rate", "burst"),
    [(None, None, None), ("web", "1/s", None), ("web", None, "3"), (None, "x", None)],
)
async def test_consume_wants_one_limit(
    tmp_path: Path, limit: str | None, rate: str | None, burst: str | None
) -> None:
    async with served(tmp_path) as service:
        await until(lambda: in_use(service) == "embedded")
        with pytest.raises(InvalidInput):
            await service.stores.consume("u", 1, limit, rate, burst)


async def test_a_missing_credential_leaves_the_former_stores_in_use_until_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valkyrie.control.service.stores.RETRY_S", 0.05)
    away = {"url": "redis://127.0.0.1:1", "credential": "p", "username": "u", "timeout_ms": 100}
    async with served(tmp_path) as service:
        await until(lambda: in_use(service) == "embedded")
        before = service.stores._manager
        wanted = store_settings(tmp_path, mode="redis", fallback_chain=["embedded"], redis=away)
        service.stores.reload(wanted)
        await until(lambda: "creds set p" in service.stores.status()["problem"])
        assert service.stores._manager is before
        await service.credentials.put(DAEMON, "p", b"secret")
        await until(lambda: service.stores._manager is not before)
        shown = service.stores.status()
        assert (shown["problem"], shown["in_use"]) == ("", "embedded")
        assert "secret" not in repr(shown)


async def test_the_check_names_what_is_wrong_and_disturbs_nothing(tmp_path: Path) -> None:
    away = {"url": "redis://127.0.0.1:1", "timeout_ms": 100}
    async with served(tmp_path, fallback_chain=["redis"], redis=away) as service:
        await until(lambda: in_use(service) == "embedded")
        embedded, redis = (await service.stores.check())["stores"]
        assert (embedded["ok"], [step["name"] for step in embedded["steps"]]) == (
            True,
            ["connect", "serve", "decide"],
        )
        assert (redis["ok"], redis["steps"][-1]["state"]) == (False, "fail")
        assert in_use(service) == "embedded"


async def test_a_credential_that_comes_is_tried_at_once(tmp_path: Path) -> None:
    lacking = {"mode": "valkey", "valkey": {"url": "valkey://127.0.0.1:1", "credential": "late"}}
    async with served(tmp_path, **lacking) as service:
        await until(lambda: "there is no credential late" in service.stores.status()["problem"])
        await service.credentials.put(DAEMON, "late", b"word")
        assert "there is no credential" not in service.stores.status()["problem"]
        await until(
            lambda: (
                not service.stores.status()["problem"] or "127.0.0.1:1" in service.stores.status()["problem"]
            )
        )
