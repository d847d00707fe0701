# SPDX-License-Identifier: Apache-2.0
"""GET /metrics by TCP, for a Prometheus that cannot read the Unix socket. It can do nothing else.

Whoever reaches the port can read: so it is off by default and meant for the loopback, and what a reader
costs is bounded: CONNECTIONS at once, SECONDS each, and one collection a second however many ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from valkyrie.control.errors import Unavailable, ValkyrieError

CONNECTIONS = 8
SECONDS = 10.0
MOST_HEAD = 8 * 1024
REUSE_S = 1.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Scraper:
    """`collect` gives the text."""

    def __init__(
        self, collect: Callable[[], Awaitable[bytes]], seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._collect = collect
        self._seconds = seconds
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._text = b""
        self._until = float("-inf")

    async def open(self, listen: str) -> None:
        """Raises Unavailable."""
        host, _, port = listen.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve, host.strip("[]"), int(port), limit=MOST_HEAD, backlog=CONNECTIONS
            )
        except OSError as error:
            raise Unavailable(
                f"cannot listen at {listen}: {error.strerror or error}", "choose another address or port"
            ) from error

    async def close(self) -> None:
        """Connections are cut. Again: nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        # Until the kernel has all of it: else what a slow reader leaves would outlive its time here.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"not HTTP/1\n")
        if words[1].split(b"?", 1)[0] != b"/metrics":
            return _response("404 Not Found", b"there is /metrics alone\n")
        if words[0] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"GET it\n")
        try:
            text = await self._fresh()
        except ValkyrieError as error:
            return _response("503 Service Unavailable", f"{error.what}\n".encode())
        return _response("200 OK", text, body=words[0] == b"GET")

    async def _fresh(self) -> bytes:
        async with self._lock:
            if self._seconds() >= self._until:
                self._text = await self._collect()
                self._until = self._seconds() + REUSE_S
            return self._text


def _response(status: str, content: bytes, *, body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\n"
        f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (content if body else b"")
