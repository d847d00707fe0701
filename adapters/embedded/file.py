# SPDX-License-Identifier: Apache-2.0
"""The open file of an adapter: its writer, and which appliance's rows in it are ours."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from valkyrie.adapters.embedded.clock import FileClock, HostClock
from valkyrie.adapters.embedded.database import open_database, translated
from valkyrie.adapters.embedded.ownership import number_of
from valkyrie.adapters.embedded.writer import Act, Writer
from valkyrie.adapters.errors import StoreConnectionError, StoreUnavailable
from valkyrie.adapters.settings import EmbeddedSettings

T = TypeVar("T")


class StoreFile:
    """Made closed. `appliance` is the number of ours, once it is open."""

    def __init__(self, settings: EmbeddedSettings, appliance: str, host: HostClock) -> None:
        self.path = settings.path
        self.appliance = 0
        self._values_mb = settings.max_values_mb
        self._name = appliance
        self._host = host
        self._writer: Writer | None = None
        self._identity = (0, 0)

    async def open(self) -> None:
        """Raises StoreError."""
        connection, clock = await asyncio.to_thread(self._open)
        self._writer = Writer(connection, self.path, clock)

    def _open(self) -> tuple[sqlite3.Connection, FileClock]:
        connection = open_database(self.path, self._values_mb)
        try:
            with translated(self.path):
                connection.execute("BEGIN IMMEDIATE")
                self.appliance = number_of(connection, self._name)
                clock = FileClock.of(connection, self._host)
                connection.execute("COMMIT")
            self._identity = _identity(self.path)
        except BaseException:
            connection.close()
            raise
        return connection, clock

    async def close(self) -> None:
        """Calls under way end. Again: nothing."""
        if self._writer is not None:
            await self._writer.close()

    async def run(self, job: Callable[[Act], T], *, writes: bool = True, rows: int = 1, size: int = 0) -> T:
        """Have the job done in a transaction (Writer.submit)."""
        if self._writer is None:
            raise StoreConnectionError(f"the store {self.path} is not open", "call start() first")
        return await self._writer.submit(job, writes=writes, rows=rows, size=size)

    async def probe(self) -> str:
        """What it is, in words. Raises StoreError when it cannot be written, or is another file by now."""
        size = await self.run(_written)
        if await asyncio.to_thread(_identity, self.path) != self._identity:
            raise StoreUnavailable(f"another file was put at {self.path}", "restart what uses the store")
        return f"SQLite {sqlite3.sqlite_version}, {self.path}, {size / 1e6:.1f} MB"

    @property
    def is_open(self) -> bool:
        return self._writer is not None and not self._writer.closed

    def figures(self) -> dict[str, int | float | str]:
        if self._writer is None:
            return {}
        return {"waiting": self._writer.waiting, "transactions": self._writer.transactions}


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise StoreConnectionError(
            f"the store {path} is not there any more: {error.strerror}", "restart what uses it"
        ) from error
    return found.st_dev, found.st_ino


def _written(act: Act) -> int:
    """Bytes of the file; writes, so that a full or read-only disk shows."""
    act.connection.execute("UPDATE clock SET seen = max(seen, ?)", (act.now,))
    (pages,) = act.connection.execute("PRAGMA page_count").fetchone()
    (size,) = act.connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)
