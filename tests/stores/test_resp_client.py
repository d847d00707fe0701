# SPDX-License-Identifier: Apache-2.0
"""The client on a server that works: ways to connect, pool, pipeline, transaction, scripts, scan."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from support.resp import client_for, connections_made, until
from support.servers import Kind, Server
from valkyrie.adapters.errors import ConsistencyError, StoreConfigurationError, StoreConnectionError
from valkyrie.adapters.resp.scripts import INCREMENT


async def test_the_url_names_host_socket_and_database(kind: Kind, resp_server: Server) -> None:
    for url in (resp_server.url, resp_server.unix_url):
        async with client_for(kind, url) as client:
            await client.run("SET", "where", url, repeatable=True)
            assert resp_server.run("GET", "where") == url.encode()
    for url in (f"{resp_server.url}/3", f"{resp_server.unix_url}?db=3"):
        async with client_for(kind, url) as client:
            assert await client.run("EXISTS", "where", repeatable=True) == 0


async def test_a_url_with_words_that_mean_nothing_is_refused(kind: Kind, resp_server: Server) -> None:
    with pytest.raises(ValidationError, match="retries"):
        async with client_for(kind, f"{resp_server.url}?retries=9"):
            pass


async def test_a_hundred_connections_serve_a_thousand_callers(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.unix_url, pool_size=100, timeout_ms=10_000) as client:
        gate = asyncio.Event()

        async def call(number: int) -> int:
            await gate.wait()
            return int(await client.run("INCR", "n", repeatable=False))

        calls = [asyncio.create_task(call(number)) for number in range(1000)]
        gate.set()
        assert sorted(await asyncio.gather(*calls)) == list(range(1, 1001))
        assert client.connections == 100


async def test_callers_beyond_the_pool_wait_and_then_are_told(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.url, pool_size=1, timeout_ms=300) as client:
        (node,) = client._nodes()
        await node.pool.reserve()
        with pytest.raises(StoreConnectionError, match="stayed in use"):
            await client.run("INCR", "n", repeatable=False)
        node.pool.unreserve()
        assert await client.run("PING", repeatable=True) == b"PONG"
        assert resp_server.run("EXISTS", "n") == 0
        assert client.breakers_opened == 0


async def test_one_caller_after_the_other_needs_one_connection(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.url) as client:
        before = connections_made(resp_server)
        for _ in range(50):
            await client.run("PING", repeatable=True)
        assert connections_made(resp_server) - before <= 2  # the client's, and the look


async def test_a_cancelled_call_leaves_no_reply_to_the_next(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.url, pool_size=1) as client:
        await client.run("SET", "a", "the next one's", repeatable=True)
        call = asyncio.create_task(client.run("BLPOP", "list", 0, repeatable=False))
        await until(lambda: b"cmd=blpop" in resp_server.run("CLIENT", "LIST"), "the call at the server")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        resp_server.run("RPUSH", "list", "the cancelled one's")
        assert await client.run("GET", "a", repeatable=True) == b"the next one's"


async def test_a_pipeline_answers_in_order_and_raises_its_first_error(
    kind: Kind, resp_server: Server
) -> None:
    async with client_for(kind, resp_server.url) as client:
        assert await client.pipeline([("SET", "a", 1), ("GET", "a")], repeatable=True) == [b"OK", b"1"]
        with pytest.raises(ConsistencyError, match="WRONGTYPE"):
            await client.pipeline([("SET", "b", 1), ("LPUSH", "a", 1), ("SET", "c", 1)], repeatable=True)
        assert resp_server.run("EXISTS", "b", "c") == 2


async def test_a_transaction_with_a_command_that_cannot_be_queued_runs_nothing(
    kind: Kind, resp_server: Server
) -> None:
    async with client_for(kind, resp_server.url) as client:
        assert await client.transaction([("SET", "a", 1), ("DEL", "a")], repeatable=True) == [b"OK", 1]
        with pytest.raises(StoreConfigurationError):
            await client.transaction([("SET", "a", 1), ("NOSUCH", "a")], repeatable=True)
        assert resp_server.run("EXISTS", "a") == 0
        assert await client.run("GET", "a", repeatable=True) is None  # the connection is out of MULTI


async def test_scripts_survive_script_flush_and_count_once(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.url) as client:
        for turn in range(1, 4):
            sum_ = await client.script(INCREMENT, ["n"], [1, 60_000], repeatable=False)
            assert int(sum_) == turn
            resp_server.run("SCRIPT", "FLUSH")


async def test_scan_finds_every_key_of_a_pattern(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.url) as client:
        names = {f"k:{number}" for number in range(2500)}
        await client.pipeline([("SET", name, 1) for name in (*names, "other")], repeatable=True)
        found = [name async for piece in client.scan("k:*", 100) for name in piece]
        assert set(found) == names


async def test_a_client_that_was_closed_says_so(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.url) as client:
        await client.run("PING", repeatable=True)
    with pytest.raises(StoreConnectionError, match="start"):
        await client.run("PING", repeatable=True)
    assert client.connections == 0
