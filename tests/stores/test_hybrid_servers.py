# SPDX-License-Identifier: Apache-2.0
"""A chain over real servers: one that dies or hangs costs the calls under way at most a timeout, one that
returns is used again, and buckets admit what they may over all of it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.ctl import ROOT
from support.servers import Server, redis_server, valkey_server
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.check import check, clock_step
from valkyrie.adapters.errors import OutcomeUnknown
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.hybrid.manager import HybridStoreManager
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.secrets import NoSecrets, StaticSecrets
from valkyrie.adapters.settings import StoreSettings

TIMEOUT_MS = 300
HOLD_S = 0.5
CALLERS = 40
FREE = Limit.of("free", "1000000/s", "1000000")
SCARCE_BURST = 3000
SCARCE = Limit.of("scarce", "1/h", str(SCARCE_BURST))


async def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.01)


def settings_of(redis: Server, folder: Path, **more: Any) -> StoreSettings:
    return StoreSettings.model_validate(
        {
            "mode": "redis",
            "fallback_chain": ["embedded"],
            "fail_back_seconds": HOLD_S,
            "redis": {"url": redis.url, "timeout_ms": TIMEOUT_MS},
            "embedded": {"path": folder / "store.db"},
            **more,
        }
    )


@asynccontextmanager
async def chain(settings: StoreSettings) -> AsyncIterator[HybridStoreManager]:
    around = Around("hybrid", StaticBook(), NoSecrets(), Path("/nowhere"))
    async with StoreFactory().chain(settings, around) as manager:
        yield manager


class Load:
    """Callers that consume without a pause but `pause_s`, and how each call went."""

    def __init__(self, store: HybridStoreManager, limit: Limit, pause_s: float = 0.002) -> None:
        self.calls: list[tuple[float, float, bool]] = []  # when it began, how long it took, whether it failed
        self.allowed = 0
        self.unknown = 0
        self._ended = False
        self._tasks = [
            asyncio.ensure_future(self._caller(store, limit, pause_s, number)) for number in range(CALLERS)
        ]

    async def _caller(self, store: HybridStoreManager, limit: Limit, pause_s: float, number: int) -> None:
        while not self._ended:
            began = time.monotonic()
            failed = False
            try:
                decision = await store.try_consume("u" if limit is SCARCE else f"u{number}", limit=limit)
                self.allowed += decision.allowed
            except OutcomeUnknown:
                failed = True
                self.unknown += 1
            self.calls.append((began, time.monotonic() - began, failed))
            await asyncio.sleep(pause_s)

    async def end(self) -> None:
        self._ended = True
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("fault", ["killed", "hung"])
async def test_a_first_store_that_dies_under_load_costs_one_timeout_and_is_used_again(
    fault: str, tmp_path: Path
) -> None:
    with redis_server() as server:
        async with chain(settings_of(server, tmp_path)) as store:
            assert store.backend_name == "redis"
            load = Load(store, FREE)
            await until(lambda: len(load.calls) > 500)
            (server.kill if fault == "killed" else server.stop)()
            await until(lambda: store.backend_name == "embedded")
            switched = time.monotonic()
            later = len(load.calls) + 500
            await until(lambda: len(load.calls) > later)
            # In a thread, as it waits for the server, and the callers under way are not to wait with it.
            await asyncio.to_thread(server.start if fault == "killed" else server.cont)
            await until(lambda: store.backend_name == "redis")
            assert time.monotonic() - switched >= HOLD_S
            await load.end()
            assert load.unknown <= CALLERS
            assert max(took for _, took, _ in load.calls) < 2 * TIMEOUT_MS / 1000 + 0.3
            after = [
                failed or took > TIMEOUT_MS / 1000 for began, took, failed in load.calls if began > switched
            ]
            assert not any(after)
            assert [one.state for one in store.status().stores] == ["in-use", "ready"]


async def test_over_a_fall_back_and_the_return_a_bucket_admits_its_burst_and_no_second_one(
    tmp_path: Path,
) -> None:
    with redis_server(appendonly=True) as server:
        async with chain(settings_of(server, tmp_path)) as store:
            load = Load(store, SCARCE, pause_s=0.02)
            await until(lambda: load.allowed > 500)
            server.kill()
            await until(lambda: store.backend_name == "embedded" and store.status().carried > 0)
            await until(lambda: load.allowed > 1000)
            await asyncio.to_thread(server.start)
            await until(lambda: store.backend_name == "redis")
            await until(lambda: load.allowed > 2500)
            before = -1
            while before != load.allowed:
                before = load.allowed
                await asyncio.sleep(0.3)
            await load.end()
            # Calls whose outcome is unknown may have been taken; what was asked while debts were on their way
            # is bounded by the callers.
            assert SCARCE_BURST - load.unknown - 4 * CALLERS <= load.allowed <= SCARCE_BURST + 4 * CALLERS


async def test_a_chain_of_redis_and_valkey_continues_by_the_second(tmp_path: Path) -> None:
    with redis_server() as first, valkey_server() as second:
        settings = settings_of(
            first, tmp_path, fallback_chain=["valkey"], valkey={"url": second.url, "timeout_ms": TIMEOUT_MS}
        )
        async with chain(settings) as store:
            own = Limit.of("own", "1/h", "10")
            assert (await store.try_consume("u", 6, limit=own)).remaining == 4
            first.kill()
            with suppress(OutcomeUnknown):  # as of a call that a dying server may still have had
                await store.try_consume("other", limit=own)
            assert (await store.try_consume("other", limit=own)).store == "valkey"
            await until(lambda: store.status().carried == 1)
            assert not (await store.try_consume("u", 5, limit=own)).allowed
            assert (await store.try_consume("u", 4, limit=own)).allowed


async def test_the_rights_that_the_documents_list_are_enough(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "stores.md").read_text()
    found = re.search(r"ACL SETUSER valkyrie (on >password .*?)```", page, re.DOTALL)
    assert found is not None
    rights = " ".join(found[1].split())
    with redis_server(users=[f"user valkyrie {rights}"]) as server:
        login = {"url": server.url, "username": "valkyrie", "credential": "p"}
        settings = StoreSettings.model_validate({"mode": "redis", "redis": login})
        around = Around("edge-1", StaticBook(), StaticSecrets({"p": "password"}), tmp_path)
        steps = await check(lambda: StoreFactory().create("redis", settings, around))
        assert [(step.name, step.state) for step in steps] == [
            ("connect", "ok"),
            ("serve", "ok"),
            ("decide", "ok"),
            ("clock", "ok"),
        ]
        other = Around("edge-2", StaticBook(), StaticSecrets({"p": "password"}), tmp_path)
        (refused,) = await check(lambda: StoreFactory().create("redis", settings, other))
        assert (refused.state, bool(refused.hint)) == ("fail", True)
        wrong = Around("edge-1", StaticBook(), StaticSecrets({"p": "guess"}), tmp_path)
        (refused,) = await check(lambda: StoreFactory().create("redis", settings, wrong))
        assert "creds set" in refused.hint


async def test_a_clock_that_is_far_off_is_said() -> None:
    assert clock_step(0.2).state == "ok"
    assert (clock_step(-60).state, "behind" in clock_step(-60).what) == ("warn", True)
