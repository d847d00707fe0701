# SPDX-License-Identifier: Apache-2.0
"""alerts.db in state_dir: the history, rules added at run time, silences, and what fires. Bounded.

Packets and limits do not depend on it: one that is damaged is put aside, and another begun.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from valkyrie.control.alerts.engine import Transition
from valkyrie.control.alerts.rules import Rule, made
from valkyrie.control.alerts.silences import Silence
from valkyrie.control.errors import InvalidInput, StateError

log = logging.getLogger(__name__)

VERSION = 1
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rules (name TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE silences (match TEXT PRIMARY KEY, until REAL NOT NULL, why TEXT NOT NULL, by TEXT NOT NULL)
  WITHOUT ROWID;
CREATE TABLE history (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, change TEXT NOT NULL,
  rule TEXT NOT NULL, subject TEXT NOT NULL, severity TEXT NOT NULL, what TEXT NOT NULL, why TEXT NOT NULL,
  silenced INTEGER NOT NULL);
"""
_PUT_ASIDE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class Line:
    """An entry of the history. `why`: how it ended, if not by its value."""

    at: float
    change: str
    rule: str
    subject: str
    severity: str
    what: str
    why: str
    silenced: bool


def line_of(change: Transition, *, silenced: bool) -> Line:
    alert = change.alert
    severity = alert.severity.name.lower()
    return Line(
        change.wall, change.change, alert.rule, alert.subject, severity, alert.what, change.why, silenced
    )


def _line(row: tuple[Any, ...]) -> Line:
    at, change, rule, subject, severity, what, why, silenced = row
    return Line(at, change, rule, subject, severity, what, why, bool(silenced))


class Book:
    """One connection, used by one thread at a time. Every method raises StateError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def kept(self) -> str | None:
        """What write() kept."""
        with self._transaction() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'kept'").fetchone()
            return str(row[0]) if row else None

    def write(self, kept: str, lines: Sequence[Line], keep: int) -> None:
        """All or nothing. Of the history the newest `keep` lines stay."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('kept', ?)", (kept,))
            connection.executemany(
                "INSERT INTO history (at, change, rule, subject, severity, what, why, silenced)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                map(astuple, lines),
            )
            connection.execute("DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?", (keep,))

    def history(self, count: int) -> list[Line]:
        """The newest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT at, change, rule, subject, severity, what, why, silenced FROM history"
                " ORDER BY id DESC LIMIT ?",
                (count,),
            )
            return [_line(row) for row in rows]

    def rules(self) -> list[Rule]:
        """Those added at run time; one that this version does not understand is left out, and said."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT name, fields FROM rules ORDER BY name").fetchall()
        found = []
        for name, fields in rows:
            try:
                found.append(made(name, json.loads(fields)))
            except (InvalidInput, ValueError) as error:
                log.error("alert rule %s is not understood and left out: %s", name, error)  # noqa: TRY400
        return found

    def put_rule(self, rule: Rule) -> None:
        with self._transaction() as connection:
            fields = {name: value for name, value in rule.shown().items() if name != "name"}
            connection.execute(
                "INSERT OR REPLACE INTO rules (name, fields) VALUES (?, ?)", (rule.name, json.dumps(fields))
            )

    def drop_rule(self, name: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM rules WHERE name = ?", (name,))

    def silences(self) -> list[Silence]:
        with self._transaction() as connection:
            rows = connection.execute("SELECT match, until, why, by FROM silences ORDER BY until, match")
            return [Silence(*row) for row in rows]

    def put_silence(self, silence: Silence) -> None:
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO silences (match, until, why, by) VALUES (?, ?, ?, ?)",
                astuple(silence),
            )

    def drop_silences(self, matches: Sequence[str]) -> None:
        with self._transaction() as connection:
            connection.executemany("DELETE FROM silences WHERE match = ?", [(one,) for one in matches])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._opened()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                self._give_up(error)
                raise StateError(
                    f"alerts are not kept in {self.path}: {error}",
                    "free some disk space, or make state_dir writable for valkyried",
                ) from error

    def _give_up(self, error: sqlite3.Error) -> None:
        """A damaged file found out late is put aside when it is opened the next time."""
        if _code(error) in _PUT_ASIDE and self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = _connect(self.path)
            except sqlite3.Error as error:
                if _code(error) not in _PUT_ASIDE:
                    raise
                aside = self.path.with_suffix(".damaged")
                log.error("%s is damaged: it is put aside as %s", self.path, aside)  # noqa: TRY400 - no bug
                _move(self.path, aside)
                self._connection = _connect(self.path)
        return self._connection


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _move(path: Path, aside: Path) -> None:
    try:
        path.replace(aside)
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    except OSError as error:
        raise sqlite3.OperationalError(f"cannot move it away: {error.strerror}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection: Any = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # as the queue that is told after it
        connection.execute("PRAGMA journal_size_limit = 4194304")
        if _version(connection) == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    except BaseException:
        connection.close()
        raise
    found: sqlite3.Connection = connection
    return found


def _version(connection: sqlite3.Connection) -> int:
    """0: it is new. Raises what a damaged file does, also for one of a version that is not known."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if verdict == "ok" and version in (0, VERSION):
        return int(version)
    error = sqlite3.DatabaseError(f"version {version}" if verdict == "ok" else verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error
