# SPDX-License-Identifier: Apache-2.0
"""The queue on disk, `notify.db` in the state's folder. For one thread at a time.

Each change is on the disk when the call returns. What is delivered may be delivered again after a crash,
never lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valkyrie.adapters.notify.message import Message, Severity
from valkyrie.control.errors import StateError
from valkyrie.control.notify.backlog import Entry

FILE = "notify.db"
VERSION = 1
SCHEMA = """
CREATE TABLE queue (id INTEGER PRIMARY KEY, adapter TEXT NOT NULL, queued REAL NOT NULL,
  message TEXT NOT NULL);
CREATE TABLE dead (id INTEGER PRIMARY KEY, adapter TEXT NOT NULL, queued REAL NOT NULL, message TEXT NOT NULL,
  died REAL NOT NULL, why TEXT NOT NULL);
CREATE TABLE counts (adapter TEXT PRIMARY KEY, dropped INTEGER NOT NULL, forgotten INTEGER NOT NULL)
  WITHOUT ROWID;
"""
Change = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Dead:
    """A message that will not be delivered unless somebody asks for it."""

    entry: Entry
    died: float
    why: str


@dataclass
class Counts:
    """Since the file was made: what a full queue dropped, and dead messages that went for newer ones."""

    dropped: int = 0
    forgotten: int = 0


@dataclass
class Kept:
    """All that the file holds."""

    queue: list[Entry] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)


def message_text(message: Message) -> str:
    parts = (
        message.title, message.body, int(message.severity), message.timestamp, message.key, message.state,
        dict(message.tags),
    )  # fmt: skip
    return json.dumps(parts, separators=(",", ":"))


def message_from(text: str) -> Message:
    title, body, severity, timestamp, key, state, tags = json.loads(text)
    return Message(title, body, Severity(severity), timestamp, key, state, tags)


def queued(entry: Entry) -> Change:
    row = (entry.id, entry.adapter, entry.queued, message_text(entry.message))
    return "INSERT OR REPLACE INTO queue VALUES (?, ?, ?, ?)", row


def unqueued(entry: Entry) -> Change:
    return "DELETE FROM queue WHERE id = ?", (entry.id,)


def buried(dead: Dead) -> Change:
    entry = dead.entry
    row = (entry.id, entry.adapter, entry.queued, message_text(entry.message), dead.died, dead.why)
    return "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?)", row


def unburied(dead: Dead) -> Change:
    return "DELETE FROM dead WHERE id = ?", (dead.entry.id,)


def counted(adapter: str, counts: Counts) -> Change:
    return "INSERT OR REPLACE INTO counts VALUES (?, ?, ?)", (adapter, counts.dropped, counts.forgotten)


def uncounted(adapter: str) -> Change:
    return "DELETE FROM counts WHERE adapter = ?", (adapter,)


def everything(kept: Kept) -> list[Change]:
    """The changes that make any file hold just this."""
    clear: list[Change] = [("DELETE FROM queue", ()), ("DELETE FROM dead", ()), ("DELETE FROM counts", ())]
    rows = [*map(queued, kept.queue), *map(buried, kept.dead)]
    return [*clear, *rows, *(counted(name, counts) for name, counts in kept.counts.items())]


class Journal:
    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._connection: sqlite3.Connection | None = None

    def open(self) -> tuple[Kept, str]:
        """What is there, and a complaint about a damaged file, which is moved aside. Raises StateError."""
        try:
            return self._opened(), ""
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _cannot("open", self.path, error) from error
            aside = self.path.with_name(f"{FILE}.damaged")
            self.close()
            try:
                self.path.replace(aside)
                for suffix in ("-wal", "-shm"):
                    self.path.with_name(FILE + suffix).unlink(missing_ok=True)
                kept = self._opened()
            except (OSError, sqlite3.Error) as again:
                raise _cannot("open", self.path, again) from again
            return kept, f"{self.path} was damaged ({error}): what waited in it lies in {aside}"
        except OSError as error:
            raise _cannot("open", self.path, error) from error

    def _opened(self) -> Kept:
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Made before SQLite opens it, which would ask the umask; its -wal takes the mode after it.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        self.path.chmod(0o600)
        made = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5)
        self._connection = made
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = FULL")
        made.execute("PRAGMA journal_size_limit = 16777216")
        (version,) = made.execute("PRAGMA user_version").fetchone()
        if version == 0:
            made.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise ValueError(f"its version is {version}, known: {VERSION}")
        return self._read(made)

    def _read(self, made: sqlite3.Connection) -> Kept:
        (verdict,) = made.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ValueError(verdict)
        kept = Kept()
        for number, adapter, at, text in made.execute("SELECT * FROM queue ORDER BY id"):
            kept.queue.append(Entry(number, adapter, message_from(text), at))
        for number, adapter, at, text, died, why in made.execute("SELECT * FROM dead ORDER BY id"):
            kept.dead.append(Dead(Entry(number, adapter, message_from(text), at), died, why))
        for adapter, dropped, forgotten in made.execute("SELECT * FROM counts"):
            kept.counts[adapter] = Counts(dropped, forgotten)
        return kept

    def apply(self, changes: Iterable[Change]) -> None:
        """All or none. Raises StateError."""
        made = self._connection
        if made is None:
            raise StateError(f"{self.path} is not open", "it is tried again")
        try:
            made.execute("BEGIN IMMEDIATE")
            try:
                for statement, row in changes:
                    made.execute(statement, row)
                made.execute("COMMIT")
            except BaseException:
                if made.in_transaction:
                    made.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _cannot("write", self.path, error) from error

    def close(self) -> None:
        made, self._connection = self._connection, None
        if made is not None:
            with contextlib.suppress(sqlite3.Error):
                made.close()


def _cannot(verb: str, path: Path, error: Exception) -> StateError:
    return StateError(
        f"cannot {verb} the queue of notifications {path}: {error}",
        "free some disk space, or see that valkyried can write there; until then messages wait in memory",
    )
