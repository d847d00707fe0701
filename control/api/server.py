# SPDX-License-Identifier: Apache-2.0
"""uvicorn over a socket that we bound, under signal handlers that are ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from socket import socket

import uvicorn

from valkyrie.control.api.app import make_app
from valkyrie.control.api.peer import Access, PeerProtocol
from valkyrie.control.service.service import Service

CONNECTIONS = 256
GRACE_S = 3


class Server(uvicorn.Server):
    """Ends when `should_exit` is set; leaves signals to the daemon."""

    def __init__(self, config: uvicorn.Config, listener: socket) -> None:
        super().__init__(config)
        self._listener = listener
        self._ready: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def run_until_told(self, ready: Callable[[], None]) -> None:
        """Serve; `ready` is called once requests are answered."""
        self._ready = ready
        await self.serve(sockets=[self._listener])


def make_server(listener: socket, access: Access, service: Service) -> Server:
    """A server on a socket that is bound."""
    config = uvicorn.Config(
        make_app(service, access),
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_S,
    )
    return Server(config, listener)
