# SPDX-License-Identifier: Apache-2.0
"""The file: opening, its tables, and SQLite's errors told as StoreErrors.

WAL with `synchronous = NORMAL`: a commit is with the kernel, so that it outlives this process however it
ends; after a power cut the file is whole and the last moments may be missing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from valkyrie.adapters.errors import (
    AuthorizationFailed,
    ConsistencyError,
    StoreConfigurationError,
    StoreConnectionError,
    StoreError,
    StoreUnavailable,
)

SCHEMA_VERSION = 1
APPLICATION_ID = 0x564B5354  # "VKST", in the file's header
BUSY_SECONDS = 2.0  # to wait for another process's transaction
CHECK_SECONDS = 2.0  # that looking for damage may take at opening; the rest is found when it is read
CACHE_KIB = 16 * 1024
WAL_BYTES = 64 << 20
BUCKETS_BYTES = 8 << 30  # that all but values may fill, so that no one fills the disk with keys
VALUE_OVERHEAD = 128  # bytes that a value takes beside key and content, about

SCHEMA = f"""
CREATE TABLE clock (boot TEXT NOT NULL, offset INTEGER NOT NULL, seen INTEGER NOT NULL);
INSERT INTO clock VALUES ('', 0, 0);
CREATE TABLE appliances (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, token TEXT, node TEXT NOT NULL
  DEFAULT '', epoch INTEGER NOT NULL DEFAULT 0, heard INTEGER NOT NULL DEFAULT 0);
CREATE TABLE buckets (appliance INTEGER NOT NULL, name TEXT NOT NULL, tat INTEGER NOT NULL, rest INTEGER
  NOT NULL, PRIMARY KEY (appliance, name)) WITHOUT ROWID;
CREATE TABLE documents (appliance INTEGER NOT NULL, name TEXT NOT NULL, content BLOB NOT NULL,
  PRIMARY KEY (appliance, name));
CREATE TABLE contents (id INTEGER PRIMARY KEY, appliance INTEGER NOT NULL, key BLOB NOT NULL, value BLOB
  NOT NULL, expires INTEGER, UNIQUE (appliance, key));
CREATE INDEX expiry ON contents (expires) WHERE expires IS NOT NULL;
CREATE TABLE usage (bytes INTEGER NOT NULL);
INSERT INTO usage VALUES (0);
CREATE TRIGGER grows AFTER INSERT ON contents BEGIN
  UPDATE usage SET bytes = bytes + {VALUE_OVERHEAD} + length(new.key) + length(new.value); END;
CREATE TRIGGER changes AFTER UPDATE OF value ON contents BEGIN
  UPDATE usage SET bytes = bytes + length(new.value) - length(old.value); END;
CREATE TRIGGER shrinks AFTER DELETE ON contents BEGIN
  UPDATE usage SET bytes = bytes - {VALUE_OVERHEAD} - length(old.key) - length(old.value); END;
"""  # noqa: S608 constants only

_DAMAGED = (
    "stop what uses it, move it away together with its -wal and -shm: all buckets then begin full; limits "
    "and bans are in the daemon's state"
)


def open_database(path: Path, max_values_mb: int) -> sqlite3.Connection:
    """A connection to the file, created with mode 0600 when it is new. Raises StoreError."""
    _create(path)
    with translated(path):
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
        )
        try:
            _prepare(connection, path, max_values_mb)
        except BaseException:
            connection.close()
            raise
    return connection


def _create(path: Path) -> None:
    """Made before SQLite opens it, which gives -wal and -shm the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except PermissionError as error:
        hint = "run as its owner, or set store.embedded.path to a file of your own"
        raise AuthorizationFailed(f"may not open the store {path}: {error.strerror}", hint) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(path) from error
        if error.errno == errno.EROFS:
            raise _read_only(path, error.strerror or "") from error
        hint = "set store.embedded.path to a file on a local disk that can be written"
        raise StoreConnectionError(f"cannot open the store {path}: {error.strerror}", hint) from error


def _prepare(connection: sqlite3.Connection, path: Path, max_values_mb: int) -> None:
    _check_origin(connection, path)
    if _wal(connection) != "wal":
        what = f"the store {path} lies where SQLite has no shared memory"
        raise StoreConfigurationError(what, "set store.embedded.path to a file on a local disk")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES // page}")
    # Values twice: pages that they share with free space.
    connection.execute(f"PRAGMA max_page_count = {(BUCKETS_BYTES + 2 * (max_values_mb << 20)) // page}")
    _check_damage(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in _statements(SCHEMA):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """One by one: executescript would end the transaction."""
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _check_origin(connection: sqlite3.Connection, path: Path) -> None:
    """Before anything is written: whose file it is, and of which version."""
    (origin,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and origin != APPLICATION_ID:
        what = f"{path} is another program's database"
        raise ConsistencyError(what, "set store.embedded.path to a file of the store's own")
    if version > SCHEMA_VERSION:
        raise ConsistencyError(
            f"the store {path} was written by a later Valkyrie (version {version}, known: {SCHEMA_VERSION})",
            "install that version again, or set store.embedded.path to a new file",
        )


def _wal(connection: sqlite3.Connection) -> str:
    """The journal mode that could be had. SQLite does not wait for others while it changes the mode."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return str(mode)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _check_damage(connection: sqlite3.Connection, path: Path) -> None:
    deadline = time.monotonic() + CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        verdict = "ok"
    finally:
        connection.set_progress_handler(None, 0)
    if verdict != "ok":
        raise ConsistencyError(f"the store {path} is damaged: {verdict}", _DAMAGED)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as StoreErrors. What failed had no effect."""
    try:
        yield
    except sqlite3.Error as error:
        raise translation(error, path) from error


def translation(error: sqlite3.Error, path: Path) -> StoreError:
    """The StoreError that says what an error of SQLite's means here."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return _full(path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ConsistencyError(f"the store {path} is damaged: {error}", _DAMAGED)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return _read_only(path, str(error))
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreConnectionError(
            f"cannot open the store {path}: {error}", "look whether its folder is there and can be written"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(
            f"another process held the store {path} for {BUSY_SECONDS:g} s",
            "end other programs that use this file",
        )
    return StoreUnavailable(f"the store {path} failed: {error}", "look at the disk and the kernel's log")


def _full(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"the disk is full, or the store {path} is at its bound", "free some space on its file system"
    )


def _read_only(path: Path, why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store {path} cannot be written: {why}", "make its file system and folder writable"
    )
