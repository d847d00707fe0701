# SPDX-License-Identifier: Apache-2.0
"""The thread that the database belongs to. Calls that wait together become one transaction.

The event loop hands over jobs and awaits futures: it never waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from valkyrie.adapters.embedded.buckets import Buckets
from valkyrie.adapters.embedded.checkpoint import Checkpointer
from valkyrie.adapters.embedded.clock import FileClock
from valkyrie.adapters.embedded.database import translation
from valkyrie.adapters.embedded.sweep import Sweeper
from valkyrie.adapters.errors import StoreConnectionError, StoreUnavailable
from valkyrie.control.errors import ValkyrieError

log = logging.getLogger(__name__)

T = TypeVar("T")

TRANSACTION_ROWS = 512  # about 3 ms: calls that come meanwhile wait so long at most
LARGE_ROWS = 128  # in one job
CLOSE_S = 2.0
MAX_JOBS = 16_384
MAX_BYTES = 128 << 20  # of values and documents in jobs that wait; one is always let in
ALONE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG)  # may be one job's fault


@dataclass(slots=True)
class Act:
    """What a job acts on: one transaction, at one instant of the file's clock (ns)."""

    connection: sqlite3.Connection
    buckets: Buckets
    now: int


@dataclass(slots=True)
class _Job:
    """`run` either raises before it has changed anything, or succeeds."""

    run: Callable[[Act], Any]
    writes: bool
    rows: int
    size: int
    future: asyncio.Future[Any]


_Outcome = tuple[Any, Exception | None]


class Writer:
    """Runs jobs in order. `submit` and `close` are for tasks of the loop that made it."""

    def __init__(self, connection: sqlite3.Connection, path: Path, clock: FileClock) -> None:
        self._connection = connection
        self._path = path
        self._clock = clock
        self._sweeper = Sweeper()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._large: deque[_Job] = deque()
        self._large_next = False
        self._ended = False
        self._jobs = 0
        self._bytes = 0
        self._closed = False
        self.transactions = 0
        self._checkpointer = Checkpointer(path)
        self._thread = Thread(target=self._serve, name="valkyrie-store", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def waiting(self) -> int:
        return self._jobs

    async def submit(
        self, run: Callable[[Act], T], *, writes: bool = True, rows: int = 1, size: int = 0
    ) -> T:
        """Have `run` called in a transaction; returns after it is committed."""
        if self._closed:
            raise StoreConnectionError(f"the store {self._path} is closed", "open it again")
        if self._jobs >= MAX_JOBS or (self._jobs and self._bytes + size > MAX_BYTES):
            raise StoreUnavailable(
                f"{self._jobs} calls wait for the store {self._path}",
                "call it less often, or use a faster disk",
            )
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs += 1
        self._bytes += size
        self._queue.put(_Job(run, writes, rows, size, future))
        return await future

    async def close(self) -> None:
        """Run what was submitted, then close the connection. A disk that hangs is waited for CLOSE_S: what it
        holds up is lost with the process, and was acknowledged to nobody.
        """
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_S)
        if self._thread.is_alive():
            log.warning("the store %s did not close in %g s: look at its disk", self._path, CLOSE_S)

    def _serve(self) -> None:
        while batch := self._next():
            outcomes = self._perform(batch)
            with contextlib.suppress(RuntimeError):  # the loop has gone: so have those who waited
                self._loop.call_soon_threadsafe(self._settle, batch, outcomes)
        self._checkpointer.close()
        self._connection.close()

    def _next(self) -> list[_Job]:
        """The jobs for the next transaction; none at the end. Small ones go together, up to a transaction's
        worth; a large one goes alone, and small ones go before it, so that they wait for one large one each.
        """
        if self._large and self._large_next:
            self._large_next = False
            return [self._large.popleft()]
        self._large_next = True
        batch: list[_Job] = []
        rows = 0
        while rows < TRANSACTION_ROWS and not self._ended:
            try:
                job = self._queue.get(block=not batch and not self._large)
            except Empty:
                break
            if job is None:
                self._ended = True
            elif job.rows >= LARGE_ROWS:
                self._large.append(job)
            else:
                batch.append(job)
                rows += job.rows
        return batch or ([self._large.popleft()] if self._large else [])

    def _settle(self, batch: list[_Job], outcomes: list[_Outcome]) -> None:
        """On the loop: wake those who wait."""
        for job, (result, error) in zip(batch, outcomes, strict=True):
            self._jobs -= 1
            self._bytes -= job.size
            if job.future.cancelled():
                continue
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)

    def _perform(self, batch: list[_Job]) -> list[_Outcome]:
        try:
            return self._transact(batch)
        except sqlite3.Error as error:
            alone = getattr(error, "sqlite_errorcode", 0) & 0xFF in ALONE
            return [
                self._perform([job])[0]
                if len(batch) > 1 and (alone or not job.writes)
                # One for each: an exception that is raised in many tasks grows their traces.
                else (None, translation(error, self._path))
                for job in batch
            ]
        except Exception as error:  # noqa: BLE001 a bug in a job must reach who called, not end the thread
            return [self._perform([job])[0] for job in batch] if len(batch) > 1 else [(None, error)]

    def _transact(self, batch: Sequence[_Job]) -> list[_Outcome]:
        """All jobs in one transaction. Raises when none of them had an effect."""
        connection = self._connection
        writes = any(job.writes for job in batch)
        connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            now = self._clock.now()
            act = Act(connection, Buckets(connection, now), now)
            outcomes = [_outcome(job, act) for job in batch]
            act.buckets.flush()
            written = sum(job.rows for job in batch if job.writes)
            if writes:
                self._clock.note(connection, now)
                self._sweeper.sweep(connection, now, written)
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after a full disk or an I/O error.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.transactions += 1
        self._checkpointer.wrote(written)
        return outcomes


def _outcome(job: _Job, act: Act) -> _Outcome:
    try:
        return job.run(act), None
    except ValkyrieError as error:
        return None, error
