# SPDX-License-Identifier: Apache-2.0
"""A password changes under load: no call fails, no connection is lost, and a wrong one changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.servers import USERS, Kind, Server, server
from valkyrie.adapters.errors import AuthenticationFailed, ConsistencyError
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.redis import RedisAdapter
from valkyrie.adapters.resp.adapter import RespAdapter
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import RedisSettings, ValkeySettings
from valkyrie.adapters.valkey import ValkeyAdapter
from valkyrie.control.credentials.followed import Followed
from valkyrie.control.credentials.store import CredentialStore
from valkyrie.control.credentials.vault import Vault
from valkyrie.control.errors import Conflict, Unavailable

FIRST, SECOND, WRONG = b"first-password", b"second-password", b"no-password-of-anybody"
NAME = "store-password"
TASKS = 16
LIMIT = Limit.of("load", "1000000/s", "1000000")


class NoBook:
    """Limits are given with each call."""

    async def limit(self, name: str) -> Limit:
        raise AssertionError(name)

    def forget(self, name: str) -> None:
        """Nothing is known."""


@pytest.fixture
def own(kind: Kind) -> Iterator[Server]:
    """A server of this test's own, since passwords of its users change."""
    with server(kind, users=USERS) as made:
        yield made


@pytest_asyncio.fixture
async def credentials(tmp_path: Path) -> CredentialStore:
    store = CredentialStore(Vault(tmp_path, None, os.urandom), time.time)
    await store.set(NAME, FIRST)
    return store


@asynccontextmanager
async def adapter_of(own: Server, credentials: Secrets) -> AsyncIterator[RespAdapter]:
    given = {"url": own.url, "username": "app", "credential": NAME, "pool_size": 8, "coalesce": False}
    made: RespAdapter
    if own.kind == "redis":
        made = RedisAdapter(RedisSettings(**given), "edge", NoBook(), credentials)
    else:
        made = ValkeyAdapter(ValkeySettings(**given), "edge", NoBook(), credentials)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


class Load:
    """Tasks that call all the time; a failed call ends its task, and `done` raises it."""

    def __init__(self, adapter: RespAdapter) -> None:
        self._adapter = adapter
        self._ended = False
        self.calls = 0
        self._tasks = [asyncio.ensure_future(self._run(number)) for number in range(TASKS)]

    async def _run(self, number: int) -> None:
        key = f"k{number}"
        while not self._ended:
            await self._adapter.set(key, b"value")
            assert await self._adapter.get(key) == b"value"
            await self._adapter.increment(f"n{number}")
            assert (await self._adapter.try_consume(key, limit=LIMIT)).allowed
            self.calls += 4

    async def some(self) -> None:
        """Until a few hundred more calls were answered."""
        wanted = self.calls + 400
        async with asyncio.timeout(30):
            while self.calls < wanted:
                await asyncio.sleep(0.005)
                for task in self._tasks:
                    if task.done():
                        task.result()

    async def done(self) -> None:
        self._ended = True
        await asyncio.gather(*self._tasks)


def connections(own: Server) -> set[int]:
    """The ids of the application's connections."""
    lines = own.run("CLIENT", "LIST").decode().splitlines()
    rows = [dict(word.split("=", 1) for word in line.split()) for line in lines]
    return {int(row["id"]) for row in rows if row["user"] == "app"}


def auths(own: Server) -> int:
    """How often AUTH was called since the server started."""
    for line in own.run("INFO", "commandstats").decode().splitlines():
        if line.startswith("cmdstat_auth:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


async def test_under_load_no_call_fails_and_no_connection_is_lost(
    own: Server, credentials: CredentialStore
) -> None:
    async with adapter_of(own, credentials) as adapter:
        load = Load(adapter)
        await load.some()
        before, authenticated = connections(own), auths(own)
        assert len(before) > 1
        made = await credentials.rotate(NAME, SECOND)
        assert made.reveal() == SECOND
        assert auths(own) >= authenticated + len(before)
        own.run("ACL", "SETUSER", "app", f"<{FIRST.decode()}")
        await load.some()
        assert connections(own) == before
        await load.done()


async def taken(own: Server, since: int, count: int) -> None:
    """Until so many connections have authenticated anew."""
    async with asyncio.timeout(30):
        while auths(own) < since + count:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


async def test_an_application_follows_what_another_process_rotates(
    own: Server, credentials: CredentialStore, tmp_path: Path
) -> None:
    theirs = Followed(CredentialStore(Vault(tmp_path, None, os.urandom), time.time), poll_s=0.05)
    async with adapter_of(own, theirs) as adapter:
        load = Load(adapter)
        await load.some()
        before, authenticated = connections(own), auths(own)
        await credentials.rotate(NAME, SECOND)
        await taken(own, authenticated, len(before))
        own.run("ACL", "SETUSER", "app", f"<{FIRST.decode()}")
        await load.some()
        assert connections(own) == before
        await load.done()
        own.run("CLIENT", "KILL", "USER", "app")
        assert await adapter.get("k0") == b"value"
        assert not connections(own) & before


async def test_an_application_that_lost_its_password_recovers_when_the_new_one_is_set(
    own: Server, credentials: CredentialStore, tmp_path: Path
) -> None:
    theirs = Followed(CredentialStore(Vault(tmp_path, None, os.urandom), time.time), poll_s=0.05)
    async with adapter_of(own, theirs) as adapter:
        own.run("ACL", "SETUSER", "app", f"<{FIRST.decode()}")
        own.run("CLIENT", "KILL", "USER", "app")
        with pytest.raises(AuthenticationFailed):
            await adapter.get("k")
        await credentials.set(NAME, SECOND)
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(AuthenticationFailed):
                    await adapter.set("k", b"again")
                    break
                await asyncio.sleep(0.02)
        assert await adapter.get("k") == b"again"


async def test_there_and_back_again_many_times(own: Server, credentials: CredentialStore) -> None:
    async with adapter_of(own, credentials) as adapter:
        load = Load(adapter)
        await load.some()
        before = connections(own)
        for turn in range(20):
            await credentials.rotate(NAME, SECOND if turn % 2 == 0 else FIRST)
        await load.some()
        assert connections(own) == before
        await load.done()


async def test_a_password_that_the_server_refuses_changes_nothing(
    own: Server, credentials: CredentialStore
) -> None:
    async with adapter_of(own, credentials) as adapter:
        load = Load(adapter)
        await load.some()
        before = connections(own)
        with pytest.raises(Conflict, match=f"version 1 of credential {NAME} stays in force"):
            await credentials.rotate(NAME, WRONG)
        await load.some()
        assert connections(own) == before
        await load.done()
        own.run("CLIENT", "KILL", "USER", "app")
        await adapter.set("k", b"v")
        assert (await credentials.secret(NAME)).reveal() == FIRST


async def test_after_a_rotation_new_connections_use_the_new_password(
    own: Server, credentials: CredentialStore
) -> None:
    """`CLIENT KILL` is what ends connections that a leaked password opened."""
    async with adapter_of(own, credentials) as adapter:
        await adapter.set("k", b"v")
        await credentials.rotate(NAME, SECOND)
        own.run("ACL", "SETUSER", "app", f"<{FIRST.decode()}")
        before = connections(own)
        own.run("CLIENT", "KILL", "USER", "app")
        assert await adapter.get("k") == b"v"
        assert not connections(own) & before


async def test_a_rotation_before_the_server_has_the_password_fails_and_then_works(
    own: Server, credentials: CredentialStore
) -> None:
    third = b"third-password"
    async with adapter_of(own, credentials) as adapter:
        with pytest.raises(Conflict):
            await credentials.rotate(NAME, third)
        own.run("ACL", "SETUSER", "app", f">{third.decode()}")
        await credentials.rotate(NAME, third)
        own.run("ACL", "SETUSER", "app", f"<{FIRST.decode()}", f"<{SECOND.decode()}")
        own.run("CLIENT", "KILL", "USER", "app")
        await adapter.set("k", b"v")


async def test_while_the_server_is_away_a_rotation_is_put_off(
    own: Server, credentials: CredentialStore
) -> None:
    async with adapter_of(own, credentials) as adapter:
        await adapter.set("k", b"v")
        own.kill()
        with pytest.raises(Unavailable, match=f"version 1 of credential {NAME} stays in force"):
            await credentials.rotate(NAME, WRONG)
        own.start()
        await until_set(adapter)


async def test_a_value_set_while_the_server_is_away_is_used_when_it_is_back(
    own: Server, credentials: CredentialStore
) -> None:
    async with adapter_of(own, credentials) as adapter:
        own.kill()
        _, complaints = await credentials.set(NAME, SECOND)
        assert complaints
        own.start()
        own.run("ACL", "SETUSER", "app", f"<{FIRST.decode()}")
        await until_set(adapter)


async def until_set(adapter: RespAdapter) -> None:
    """Past the circuit breaker's pause."""
    deadline = time.monotonic() + 30
    while True:
        try:
            await adapter.set("k", b"v")
        except AuthenticationFailed:
            raise
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def test_no_password_is_in_logs_errors_reprs_or_arguments(
    own: Server,
    credentials: CredentialStore,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    told = []
    async with adapter_of(own, credentials) as adapter:
        await credentials.rotate(NAME, SECOND)
        with pytest.raises(Conflict) as refused:
            await credentials.rotate(NAME, WRONG)
        error: BaseException | None = refused.value
        while error is not None:
            told += [repr(error), str(error)]
            error = error.__cause__ or error.__context__
        parts = [adapter, *vars(adapter).values(), credentials, *vars(credentials).values()]
        told += [repr(part) for part in parts]
        told += [repr(await adapter.stats()) if asyncio.iscoroutinefunction(adapter.stats) else ""]
    await credentials.set(NAME, WRONG)
    with pytest.raises(AuthenticationFailed) as wrong:
        async with adapter_of(own, credentials):
            pass
    told += [repr(wrong.value), str(wrong.value), repr(wrong.getrepr(showlocals=False))]
    told += [caplog.text, *capfd.readouterr()]
    for value in (SECOND, WRONG):
        assert value.decode() not in "\n".join(told)


async def test_values_stay_readable_when_compression_and_the_key_change(
    valkey9: Server, credentials: CredentialStore
) -> None:
    text, binary = b"the same words again. " * 100, bytes(range(256)) * 10

    @asynccontextmanager
    async def opened(**given: Any) -> AsyncIterator[ValkeyAdapter]:
        made = ValkeyAdapter(ValkeySettings(url=valkey9.url, **given), "edge", NoBook(), credentials)
        await made.start()
        try:
            yield made
        finally:
            await made.close()

    async with opened() as plain:
        await plain.set("a", text)
        await plain.set("b", b"\xf9" + binary)
    async with opened(compression="zstd") as zstd:
        assert (await zstd.get("a"), await zstd.get("b")) == (text, b"\xf9" + binary)
        await zstd.set("c", text)
    async with opened() as plain:
        assert await plain.get("c") == text
    await credentials.set("values-key", b"a key of sixteen bytes or more")
    async with opened(compression="zstd", encryption_credential="values-key") as encrypted:
        await encrypted.set("d", text)
        await credentials.rotate("values-key", b"another key of sixteen bytes")
        await encrypted.set("e", text)
        assert (await encrypted.get("d"), await encrypted.get("e")) == (text, text)
        assert await encrypted.increment("n", 5) == 5
        assert await encrypted.get("n") == b"5"
        with pytest.raises(Conflict):
            await credentials.rotate("values-key", b"short")
        with pytest.raises(ConsistencyError, match="not encrypted"):
            await encrypted.get("a")
    stored = [valkey9.run("GET", key) for key in valkey9.run("KEYS", "*[de]")]
    assert len([value for value in stored if value[0] == 0xFB]) == 2
    assert not any(b"words" in value for value in stored)
