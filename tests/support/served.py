# SPDX-License-Identifier: Apache-2.0
"""The daemon's API on a real socket over a data plane in memory, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from support.fake_engine import FakeEngine
from valkyrie.control.api.listener import bind
from valkyrie.control.api.peer import Access
from valkyrie.control.api.server import make_server
from valkyrie.control.config import Settings
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.service import Service
from valkyrie.control.state.store import State


class Served:
    def __init__(self, path: Path, service: Service) -> None:
        self.path = path
        self.service = service

    async def call(
        self, method: str, target: str, body: Any = None, raw: bytes | None = None
    ) -> tuple[int, Any]:
        payload = raw if raw is not None else None if body is None else json.dumps(body).encode()
        return await asyncio.to_thread(self._ask, method, target, payload)

    def _ask(self, method: str, target: str, payload: bytes | None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(self.path))
        try:
            connection.request(method, target, payload)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@contextlib.asynccontextmanager
async def served(settings: Settings, access: Access | None = None) -> AsyncIterator[Served]:
    service = Service(settings, State.open(settings.database, bytes), FakeEngine("eth1"), Clock())
    await service.start()
    who = access or Access(None, None)
    listener = bind(settings.socket, write_group=who.write_group, read_group=who.read_group)
    server = make_server(listener, who, service)
    started = asyncio.Event()
    serving = asyncio.ensure_future(server.run_until_told(started.set))
    try:
        await started.wait()
        yield Served(settings.socket, service)
    finally:
        service.hub.close()
        server.should_exit = True
        await serving
        await service.close()
