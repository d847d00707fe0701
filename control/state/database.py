# SPDX-License-Identifier: Apache-2.0
"""The embedded database: opening, integrity, and transactions that are all or nothing.

SQLite's errors are translated here, once: everything above sees StateError with what to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from valkyrie.control.errors import Conflict, StateError

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE limits (
  name TEXT PRIMARY KEY, match TEXT NOT NULL, key TEXT NOT NULL, rate TEXT NOT NULL, burst TEXT,
  action TEXT NOT NULL, ban_for TEXT, measure TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE overrides (
  limit_name TEXT NOT NULL, prefix TEXT NOT NULL, rate TEXT NOT NULL, burst TEXT,
  PRIMARY KEY (limit_name, prefix)) WITHOUT ROWID;
CREATE TABLE exempts (prefix TEXT PRIMARY KEY, until REAL, note TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE bans (prefix TEXT PRIMARY KEY, until REAL, note TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE slots (name TEXT PRIMARY KEY, key TEXT NOT NULL, slot INTEGER NOT NULL UNIQUE,
  uid INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE retired (uid INTEGER PRIMARY KEY, slot INTEGER);
CREATE TABLE nics (name TEXT PRIMARY KEY, slot INTEGER NOT NULL UNIQUE, mode TEXT NOT NULL, confirm REAL,
  deadline REAL) WITHOUT ROWID;
CREATE TABLE protects (nic TEXT NOT NULL, prefix TEXT NOT NULL, PRIMARY KEY (nic, prefix)) WITHOUT ROWID;
CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, uid INTEGER NOT NULL,
  user TEXT NOT NULL, pid INTEGER NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL);
"""


class Database:
    """One connection, one writer. Not for use by two threads at once: the service holds a lock."""

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: int) -> None:
        self.connection = connection
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Database:
        """The database at `path`, created with mode 0600 when it is new.

        Raises StateError when it cannot be opened, is damaged or is of a later version; Conflict
        when another daemon holds it.
        """
        lock = _lock(path)
        try:
            with _translated(path, "open"):
                connection = _connect(path)
        except BaseException:
            os.close(lock)
            raise
        return cls(connection, path, lock)

    def close(self) -> None:
        self.connection.close()
        os.close(self._lock)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commits at the end of the block, rolls back when it raises."""
        with _translated(self.path, "write"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after a full disk or an I/O error.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with _translated(self.path, "read"):
            yield self.connection


def _lock(path: Path) -> int:
    """An exclusive lock beside the database, which the kernel gives back however the process ends."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Conflict(
                f"another valkyried uses the state in {path.parent}",
                "stop it first, or set another state_dir for this one",
            ) from None
        # Made before SQLite opens it: the kernel's secret lies in it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise StateError(f"cannot open the state {path}: {error.strerror}", _hint(error.errno)) from error
    return lock


def _hint(code: int | None) -> str:
    if code == errno.ENOSPC:
        return "free some disk space and start again"
    if code == errno.EROFS:
        return "the file system is read-only: set state_dir to one that can be written"
    return "state_dir must be a folder that valkyried, run as root, can write"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StateError(f"the state {path} is damaged: {verdict}", _DAMAGED)  # noqa: TRY301
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StateError(
            f"the state {path} was written by a later Valkyrie (version {version}, known: {SCHEMA_VERSION})",
            "install that version again, or move the file away and apply an exported document",
        )
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


_DAMAGED = (
    "what is enforced stays in force until valkyried starts with another state: put a copy of it back, or "
    "move state.db, state.db-wal and state.db-shm away together and start: limits come back from the store"
)


@contextlib.contextmanager
def _translated(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            what, hint = (
                f"the disk is full: cannot {verb} the state {path}",
                "free some space and repeat the change",
            )
        elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            what, hint = f"the state {path} is damaged: {error}", _DAMAGED
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            what, hint = f"cannot {verb} the state {path}: {error}", _hint(errno.EROFS)
        elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            what, hint = f"another process locks the state {path}", "close other programs that use this file"
        else:
            what, hint = f"cannot {verb} the state {path}: {error}", "check the disk and the kernel's log"
        raise StateError(what, hint) from error
