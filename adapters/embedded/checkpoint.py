# SPDX-License-Identifier: Apache-2.0
"""Moving what is in the WAL to the database, beside the writer: it waits for the disk there, not here."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from threading import Event, Thread

from valkyrie.adapters.embedded.database import BUSY_SECONDS

ROWS = 1000  # written between two checkpoints: in the worst case each is a page of its own


class Checkpointer:
    """A thread with a connection of its own. What it cannot do, the writer does at the bound of the WAL."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = 0
        self._wanted = Event()
        self._ending = False
        self._thread = Thread(target=self._serve, name="valkyrie-checkpoint", daemon=True)
        self._thread.start()

    def wrote(self, rows: int) -> None:
        """For the writer, after each commit."""
        self._rows += rows
        if self._rows >= ROWS:
            self._rows = 0
            self._wanted.set()

    def close(self) -> None:
        self._ending = True
        self._wanted.set()
        self._thread.join()

    def _serve(self) -> None:
        # The writer meets the same error and tells it.
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(
                sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_SECONDS)
            ) as own,
        ):
            own.execute("PRAGMA synchronous = NORMAL")
            while self._wanted.wait() and not self._ending:
                self._wanted.clear()
                with contextlib.suppress(sqlite3.Error):
                    own.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
