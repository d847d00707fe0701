# SPDX-License-Identifier: Apache-2.0
"""Servers that fail: what callers are told, how fast, and that nothing happens twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

import pytest

from support.resp import adapter_for, client_for, through
from support.servers import Kind, Server, server
from valkyrie.adapters.errors import (
    OutcomeUnknown,
    StoreConnectionError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.resp import link
from valkyrie.adapters.store import Request

TIMEOUT_MS = 300


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_refused_connection_means_not_sent(kind: Kind, repeatable: bool) -> None:
    with server(kind) as made:
        async with client_for(kind, made.url, breaker_failures=100) as client:
            await client.run("SET", "n", 0, repeatable=True)
            made.kill()
            await asyncio.sleep(0.05)  # until the end of the connection has been seen
            with pytest.raises(StoreConnectionError) as caught:
                await client.run("INCR", "n", repeatable=repeatable)
            assert caught.value.retryable


async def test_a_server_that_comes_back_is_used_again(kind: Kind) -> None:
    with server(kind) as made:
        async with client_for(kind, made.url, breaker_seconds=0.2) as client:
            for _ in range(2):
                await client.run("SET", "n", 0, repeatable=True)
                made.kill()
                for _ in range(10):
                    with pytest.raises(StoreError):
                        await client.run("GET", "n", repeatable=True)
                made.start()
                await asyncio.sleep(0.2)
                assert await client.run("INCR", "n", repeatable=False) == 1


async def test_a_hung_server_costs_one_timeout_and_then_nothing(kind: Kind) -> None:
    with server(kind) as made:
        options: dict[str, Any] = {"timeout_ms": TIMEOUT_MS, "breaker_failures": 3, "breaker_seconds": 0.5}
        async with client_for(kind, made.url, **options) as client:
            await client.run("PING", repeatable=True)
            made.stop()
            began = time.perf_counter()
            calls = [client.run("GET", "n", repeatable=True) for _ in range(5)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert time.perf_counter() - began < TIMEOUT_MS / 1000 + 0.15
            assert {type(one) for one in outcomes} <= {StoreTimeout, StoreConnectionError}
            began = time.perf_counter()
            with pytest.raises(StoreUnavailable, match="in a row"):
                await client.run("GET", "n", repeatable=True)
            assert time.perf_counter() - began < 0.1
            made.cont()
            await asyncio.sleep(0.5)
            assert await client.run("GET", "n", repeatable=True) is None


async def test_a_hung_server_and_a_call_that_was_sent_is_unknown(kind: Kind) -> None:
    with server(kind) as made:
        async with client_for(kind, made.url, timeout_ms=TIMEOUT_MS) as client:
            await client.run("PING", repeatable=True)
            made.stop()
            with pytest.raises(OutcomeUnknown):
                await client.run("INCR", "n", repeatable=False)
            made.cont()
            assert await client.run("INCR", "n", repeatable=False) == 2  # it had taken effect, once


async def test_half_open_connections_cost_one_timeout_not_one_each(kind: Kind, resp_server: Server) -> None:
    options: dict[str, Any] = {"timeout_ms": TIMEOUT_MS, "max_retries": 0, "pool_size": 10}
    async with through(resp_server) as (proxy, url), client_for(kind, url, **options) as client:
        await asyncio.gather(*(client.run("DEBUG", "SLEEP", "0.01", repeatable=True) for _ in range(10)))
        assert client.connections == 10
        proxy.freeze()
        with pytest.raises(StoreTimeout):
            await client.run("GET", "a", repeatable=True)
        await client.run("GET", "a", repeatable=True)  # over a new one; the frozen ones are gone


async def test_a_lost_reply_is_counted_once_and_told_as_unknown(kind: Kind, resp_server: Server) -> None:
    async with through(resp_server) as (proxy, url), client_for(kind, url) as client:
        await client.run("SET", "n", 0, repeatable=True)
        proxy.cut_replies = 1
        with pytest.raises(OutcomeUnknown):
            await client.run("INCR", "n", repeatable=False)
        assert resp_server.run("GET", "n") == b"1"


async def test_a_lost_reply_of_a_repeatable_call_is_not_seen(kind: Kind, resp_server: Server) -> None:
    async with through(resp_server) as (proxy, url), client_for(kind, url) as client:
        await client.run("SET", "a", 5, repeatable=True)
        proxy.cut_replies = 1
        assert await client.run("GET", "a", repeatable=True) == b"5"


async def test_under_random_faults_no_effect_is_counted_twice(kind: Kind, resp_server: Server) -> None:
    chance = random.Random(7)
    done = unknown = 0
    options: dict[str, Any] = {"breaker_failures": 1000, "pool_size": 4, "timeout_ms": 2000}
    async with through(resp_server) as (proxy, url), client_for(kind, url, **options) as client:
        await client.run("SET", "n", 0, repeatable=True)

        async def worker() -> None:
            nonlocal done, unknown
            for _ in range(250):
                if chance.random() < 0.1:
                    proxy.cut_replies = 1
                try:
                    await client.run("INCR", "n", repeatable=False)
                    done += 1
                except OutcomeUnknown:
                    unknown += 1
                except StoreConnectionError:
                    pass  # a greeting was cut: not sent

        await asyncio.gather(*(worker() for _ in range(8)))
    counted = int(resp_server.run("GET", "n"))
    assert unknown > 20
    assert done <= counted <= done + unknown


async def test_ten_thousand_calls_under_random_faults_take_no_token_twice(
    kind: Kind, resp_server: Server
) -> None:
    chance = random.Random(11)
    limit = Limit.of("once", "1/h", "3")  # nothing comes back while the test runs
    told: dict[str, bool | None] = {}  # by key: taken, or not known
    options: dict[str, Any] = {"breaker_failures": 1000, "timeout_ms": 2000}
    async with through(resp_server) as (proxy, url), adapter_for(kind, url, **options) as store:

        async def caller(number: int) -> None:
            for turn in range(100):
                key = f"{number}.{turn}"
                if chance.random() < 0.01:
                    proxy.cut_replies = 1
                try:
                    told[key] = (await store.try_consume(key, limit=limit)).allowed
                except OutcomeUnknown:
                    told[key] = None
                except StoreConnectionError:
                    told[key] = False

        await asyncio.gather(*(caller(number) for number in range(100)))
        proxy.cut_replies = 0
        left = await store.try_consume_many([Request(key, limit, 0) for key in told])
    taken = {key: 3 - decision.remaining for key, decision in zip(told, left, strict=True)}
    assert len(told) == 10_000
    assert {taken[key] for key, known in told.items() if known} == {1}
    assert {taken[key] for key, known in told.items() if known is False} <= {0}
    assert {taken[key] for key, known in told.items() if known is None} == {1}  # the request was passed on


async def test_a_read_only_replica_is_unavailable_and_ran_nothing(kind: Kind, resp_server: Server) -> None:
    with server(kind, replica_of=resp_server) as replica:
        async with client_for(kind, replica.url, max_retries=0) as client:
            with pytest.raises(StoreUnavailable, match="READONLY"):
                await client.run("INCR", "n", repeatable=False)
            assert client.breakers_opened == 0


async def test_a_full_memory_is_unavailable_for_writes_and_reads_go_on(kind: Kind) -> None:
    with server(kind, maxmemory="100mb") as made:
        async with client_for(kind, made.url, max_retries=0) as client:
            await client.run("SET", "big", b"x" * 1_000_000, repeatable=True)
            made.run("CONFIG", "SET", "maxmemory", "1mb")
            with pytest.raises(StoreUnavailable, match="OOM"):
                await client.run("INCR", "n", repeatable=False)
            assert await client.run("GET", "n", repeatable=True) is None
            assert client.breakers_opened == 0


async def test_a_server_that_is_loading_is_unavailable(kind: Kind) -> None:
    with server(kind, lines=["key-load-delay 50"]) as made:
        for number in range(400):
            made.run("SET", f"k{number}", b"x" * 5000)
        async with client_for(kind, made.url, max_retries=0) as client:
            await client.run("PING", repeatable=True)
            reload = asyncio.create_task(asyncio.to_thread(_reload, made))
            seen: set[str] = set()
            while not reload.done():
                try:
                    await client.run("GET", "k1", repeatable=True)
                except StoreUnavailable as error:
                    seen.add(error.what)
                except StoreError:
                    pass
                await asyncio.sleep(0.005)
            await reload
            assert any("LOADING" in what for what in seen)


def _reload(made: Server) -> None:
    with made.client(socket_timeout=30) as client:
        client.execute_command("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
        client.execute_command("DEBUG", "RELOAD")


async def test_no_more_connections_than_the_server_takes_is_told(kind: Kind) -> None:
    with server(kind, lines=["maxclients 4"]) as made:
        async with client_for(kind, made.url, pool_size=20, max_retries=0) as client:
            calls = [client.run("BLPOP", "never", "0.1", repeatable=True) for _ in range(20)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        told = [one for one in outcomes if isinstance(one, StoreUnavailable)]
        assert any("maxclients" in one.hint for one in told)


async def test_a_server_that_hangs_up_makes_no_storm(kind: Kind) -> None:
    accepted = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"{kind}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening, client_for(kind, url, breaker_failures=5, pool_size=10) as client:
        calls = [client.run("PING", repeatable=True) for _ in range(200)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in outcomes} <= {StoreConnectionError, StoreUnavailable}
    assert accepted <= 5 + 10


async def test_a_reply_without_end_is_given_up(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_REPLY", 1 << 20)
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            await reader.read(4096)
            writer.write(b"+OK\r\n")
            await reader.read(4096)
            writer.write(b"$500000000\r\n")
            while sent < 100 << 20:
                writer.write(bytes(1 << 16))
                sent += 1 << 16
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with client_for(kind, f"{kind}://127.0.0.1:{port}", max_retries=0) as client:
            with pytest.raises(StoreError, match="a reply has more than 1048576 bytes"):
                await client.run("GET", "a", repeatable=True)
    assert sent < 50 << 20
