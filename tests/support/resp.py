# SPDX-License-Identifier: Apache-2.0
"""Clients and adapters of both kinds for tests of real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.servers import Kind, Server
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.redis import RedisAdapter
from valkyrie.adapters.resp.adapter import RespAdapter
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.secrets import NoSecrets, Secrets
from valkyrie.adapters.settings import RedisSettings, RespSettings, ValkeySettings
from valkyrie.adapters.valkey import ValkeyAdapter
from valkyrie.control.errors import NotFound

APPLIANCE = "edge"


class NoBook:
    """There are no declared limits."""

    async def limit(self, name: str) -> Limit:
        raise NotFound(f"no limit {name}")

    def forget(self, name: str) -> None:
        """Nothing is known."""


def settings_for(kind: Kind, url: str, **options: Any) -> RespSettings:
    return RedisSettings(url=url, **options) if kind == "redis" else ValkeySettings(url=url, **options)


def adapter_for(
    kind: Kind, url: str, secrets: Secrets | None = None, *, allow_flush: bool = False, **options: Any
) -> RespAdapter:
    given = secrets or NoSecrets()
    if kind == "redis":
        redis = RedisSettings(url=url, **options)
        return RedisAdapter(redis, APPLIANCE, NoBook(), given, allow_flush=allow_flush)
    valkey = ValkeySettings(url=url, **options)
    return ValkeyAdapter(valkey, APPLIANCE, NoBook(), given, allow_flush=allow_flush)


@asynccontextmanager
async def client_for(
    kind: Kind, url: str, secrets: Secrets | None = None, *, read_replicas: bool = False, **options: Any
) -> AsyncIterator[RespClient]:
    """A started client; it is closed at the end."""
    driver = (RedisAdapter if kind == "redis" else ValkeyAdapter).driver
    client = RespClient(
        driver, settings_for(kind, url, **options), secrets or NoSecrets(), read_replicas=read_replicas
    )
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def connections_made(server: Server) -> int:
    """How many the server has accepted since its start; a look at it makes one more."""
    text = server.run("INFO", "stats").decode()
    return int(text.partition("total_connections_received:")[2].split()[0])


async def until(holds: Callable[[], bool], what: str, deadline: float = 10.0) -> None:
    """Poll for what no event tells."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while not holds():
        if loop.time() > end:
            raise TimeoutError(f"{what}: not within {deadline} s")
        await asyncio.sleep(0.01)


class Proxy:
    """A TCP way to a server whose replies a test can have vanish: after the request was passed on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.cut_replies = 0  # so many of the next replies are lost with their connection
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *unused: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    def freeze(self) -> None:
        """No reply comes on the connections there are; they stay open."""
        self._frozen = set(self._writers)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, ours}
        for way in (self._requests(reader, ours), self._replies(theirs, writer, ours)):
            task = asyncio.create_task(way)
            self._tasks.add(task)

    async def _requests(self, reader: asyncio.StreamReader, ours: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            ours.write(data)
        ours.close()

    async def _replies(
        self, theirs: asyncio.StreamReader, writer: asyncio.StreamWriter, ours: asyncio.StreamWriter
    ) -> None:
        while data := await theirs.read(65536):
            if self.cut_replies:
                self.cut_replies -= 1
                break
            if writer not in self._frozen:
                writer.write(data)
        writer.close()
        ours.close()


@asynccontextmanager
async def through(made: Server) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to a server, and the URL of the way through it."""
    async with Proxy(made.port) as proxy:
        yield proxy, f"{made.kind}://localhost:{proxy.port}"
