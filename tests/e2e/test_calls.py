# SPDX-License-Identifier: Apache-2.0
"""An application beside the daemon: the same limits as packets, with the daemon and without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from support.appliance import Appliance
from support.way import SLOW, Way
from valkyrie.adapters.books import ApiBook
from valkyrie.adapters.settings import YggdrasilSettings
from valkyrie.adapters.yggdrasil.adapter import YggdrasilAdapter
from valkyrie.control.dataplane import pins

T = TypeVar("T")
WORLD = "10.9.0.2"
PATIENCE_S = 60.0


def adapter(appliance: Appliance) -> YggdrasilAdapter:
    book = ApiBook(appliance.folder / "v.sock")
    return YggdrasilAdapter(YggdrasilSettings(), "edge", book, pin_dir=appliance.bpffs / "valkyrie")


def wait_for_calls(appliance: Appliance) -> None:
    """The programs for calls are built after the daemon is ready."""
    deadline = time.monotonic() + PATIENCE_S
    while not {"call", "value"} <= pins.pinned(appliance.bpffs / "valkyrie"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def using(appliance: Appliance, work: Callable[[YggdrasilAdapter], Awaitable[T]]) -> T:
    async def run() -> T:
        async with adapter(appliance) as store:
            return await work(store)

    return asyncio.run(run())


def test_packets_and_calls_spend_one_limit_also_when_the_daemon_is_dead(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("PUT", "/v1/limits/login", {"key": "id", "rate": "1/h", "burst": "2"})
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(appliance)
    wait_for_calls(appliance)

    async def work(store: YggdrasilAdapter) -> None:
        assert (await store.try_consume(WORLD, 2, limit="slow")).allowed
        assert (await store.try_consume("eve", limit="login")).allowed
        await store.set("k", b"v")
        appliance.kill()
        assert way.passed(5) == 1
        assert not (await store.try_consume(WORLD, limit="slow")).allowed
        assert [(await store.try_consume("eve", limit="login")).allowed for _ in range(2)] == [True, False]
        appliance.start()
        assert await store.get("k") == b"v"
        assert not (await store.try_consume("eve", limit="login")).allowed

    using(appliance, work)
    (bucket,) = appliance.done("GET", "/v1/buckets?limit=login")["buckets"]
    assert (bucket["key"][0], len(bucket["key"]), bucket["tokens_left"]) == ("#", 33, 0)
    appliance.done("POST", "/v1/buckets/reset", {"limit": "login", "key": "eve"})
    using(appliance, _again)


async def _again(store: YggdrasilAdapter) -> None:
    assert (await store.try_consume("eve", limit="login")).remaining == 1


def test_a_limit_that_is_given_another_key_is_followed(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("PUT", "/v1/limits/login", {"key": "src", "rate": "1/h", "burst": "2"})
    wait_for_calls(appliance)

    async def work(store: YggdrasilAdapter) -> None:
        assert (await store.try_consume("10.0.0.1", 2, limit="login")).allowed
        # In a thread: a book asks the daemon from this loop.
        fresh = {"key": "id", "rate": "1/h", "burst": "1"}
        await asyncio.to_thread(appliance.done, "PUT", "/v1/limits/login", fresh)
        assert [(await store.try_consume("eve", limit="login")).allowed for _ in range(2)] == [True, False]

    using(appliance, work)


def test_explain_and_limits_tell_of_limits_for_calls(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("PUT", "/v1/limits/login", {"key": "id", "rate": "1/h", "burst": "2"})
    appliance.done("PUT", "/v1/limits/web", {"key": "src", "rate": "1/h", "burst": "2"})
    told = appliance.done("POST", "/v1/explain", {"packet": "proto udp src 10.0.0.1"})
    assert [one["name"] for one in told["limits"]] == ["web"]
    assert appliance.done("GET", "/v1/limits/login")["key"] == "id"
