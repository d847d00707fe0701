# SPDX-License-Identifier: Apache-2.0
"""Users and passwords: wrong ones make no storm, new ones drop no connection and fail no call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from support.resp import adapter_for, client_for, connections_made, settings_for
from support.servers import Kind, Server, server
from valkyrie.adapters.errors import AuthenticationFailed, AuthorizationFailed
from valkyrie.adapters.secrets import StaticSecrets

APP: dict[str, Any] = {"username": "app", "credential": "store"}


def given(password: str) -> StaticSecrets:
    return StaticSecrets({"store": password})


async def test_a_wrong_password_is_told_as_such_and_makes_few_connections(
    kind: Kind, resp_server: Server
) -> None:
    before = connections_made(resp_server)
    async with client_for(kind, resp_server.url, given("wrong"), **APP) as client:
        for _ in range(50):
            with pytest.raises(AuthenticationFailed) as caught:
                await client.run("PING", repeatable=True)
            assert not caught.value.retryable
            assert "wrong" not in str(caught.value)
    assert connections_made(resp_server) - before <= 2  # one try, and the look


async def test_a_wrong_password_in_a_crowd_makes_no_more_connections_than_the_pool_has(
    kind: Kind, resp_server: Server
) -> None:
    before = connections_made(resp_server)
    async with client_for(kind, resp_server.url, given("wrong"), pool_size=5, **APP) as client:
        calls = [client.run("PING", repeatable=True) for _ in range(200)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in outcomes} == {AuthenticationFailed}
    assert connections_made(resp_server) - before <= 6


async def test_the_right_password_given_later_is_used_at_once(kind: Kind, resp_server: Server) -> None:
    secrets = given("wrong")
    async with client_for(kind, resp_server.url, secrets, breaker_seconds=60, **APP) as client:
        with pytest.raises(AuthenticationFailed):
            await client.run("PING", repeatable=True)
        await secrets.replace("store", "first-password")
        assert await client.run("PING", repeatable=True) == b"PONG"


async def test_rotation_under_load_drops_no_connection_and_fails_no_call(
    kind: Kind, resp_server: Server
) -> None:
    secrets = given("first-password")
    async with client_for(kind, resp_server.url, secrets, pool_size=20, timeout_ms=5000, **APP) as client:
        stop = asyncio.Event()

        async def work() -> int:
            count = 0
            while not stop.is_set():
                await client.run("INCR", "n", repeatable=False)
                count += 1
            return count

        await asyncio.gather(*(client.run("PING", repeatable=True) for _ in range(100)))
        before = connections_made(resp_server)
        workers = [asyncio.create_task(work()) for _ in range(30)]
        for turn in range(10):
            await secrets.replace("store", ("second-password", "first-password")[turn % 2])
        await secrets.replace("store", "second-password")
        resp_server.run("ACL", "SETUSER", "app", "<first-password")
        try:
            await asyncio.sleep(0.05)
            stop.set()
            done = sum(await asyncio.gather(*workers))
            assert int(resp_server.run("GET", "n")) == done > 0
            assert connections_made(resp_server) - before <= 20 + 3  # at most the rest of the pool, and looks
            resp_server.run("CLIENT", "KILL", "USER", "app")
            assert await client.run("PING", repeatable=True) == b"PONG"  # new ones come with the new password
        finally:
            resp_server.run("ACL", "SETUSER", "app", ">first-password")


async def test_a_rotation_that_the_server_refuses_changes_nothing(kind: Kind, resp_server: Server) -> None:
    secrets = given("first-password")
    async with client_for(kind, resp_server.url, secrets, **APP) as client:
        await client.run("PING", repeatable=True)
        before = connections_made(resp_server)
        with pytest.raises(AuthenticationFailed):
            await secrets.replace("store", "nobody's password")
        assert await client.run("ACL", "WHOAMI", repeatable=True) == b"app"
        assert connections_made(resp_server) - before == 1
        resp_server.run("CLIENT", "KILL", "USER", "app")
        assert await client.run("PING", repeatable=True) == b"PONG"


async def test_who_may_not_write_is_told_at_start(kind: Kind, resp_server: Server) -> None:
    adapter = adapter_for(
        kind, resp_server.url, given("reader-password"), username="reader", credential="store"
    )
    with pytest.raises(AuthorizationFailed, match="set"):
        await adapter.start()
    assert adapter.stats().connections == 0


async def test_a_password_without_a_user_is_the_default_users(kind: Kind) -> None:
    with server(kind, password="the-servers") as made:
        async with client_for(kind, made.url, given("the-servers"), credential="store") as client:
            assert await client.run("ACL", "WHOAMI", repeatable=True) == b"default"
        async with client_for(kind, made.url) as client:
            with pytest.raises(AuthenticationFailed, match="NOAUTH"):
                await client.run("GET", "a", repeatable=True)


def test_a_user_without_a_password_is_refused_before_connecting(kind: Kind) -> None:
    with pytest.raises(ValidationError, match="username without a password"):
        settings_for(kind, f"{kind}://localhost", username="app")


async def test_no_repr_shows_the_password(kind: Kind, resp_server: Server) -> None:
    async with client_for(kind, resp_server.url, given("first-password"), **APP) as client:
        await client.run("PING", repeatable=True)
        router = client._router
        assert router is not None
        (node,) = router.topology.nodes()
        for link in node.pool._all:
            connection = link._connection
            assert "first-password" not in repr(vars(connection)) + repr(connection) + repr(link.secret)
