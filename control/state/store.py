# SPDX-License-Identifier: Apache-2.0
"""The state: everything that must outlive the daemon, read once at start and written change by change."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from valkyrie.control.audit import Entry, read_audit, write_audit
from valkyrie.control.durable.role import Role, role_in
from valkyrie.control.errors import StateError
from valkyrie.control.limits import Desired
from valkyrie.control.state import nics, policy
from valkyrie.control.state.database import Database
from valkyrie.control.state.slots import Allotment, Retired, Slot

SECRET_BYTES = 16


class Transaction:
    """What one change writes. Nothing of it lasts unless the block that made it ends well."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def policy(self, change: policy.PolicyChange) -> None:
        policy.write_policy(self._connection, change)

    def allotment(self, old: Allotment, new: Allotment) -> None:
        if new == old:
            return
        changed = [slot for name, slot in new.slots.items() if old.slots.get(name) != slot]
        gone = [name for name in old.slots if new.slots.get(name) != old.slots[name]]
        self._connection.executemany("DELETE FROM slots WHERE name = ?", ((name,) for name in gone))
        self._connection.executemany(
            "INSERT INTO slots (name, key, slot, uid) VALUES (?, ?, ?, ?)",
            ((slot.name, slot.key, slot.slot, slot.uid) for slot in changed),
        )
        self._connection.execute("DELETE FROM retired")
        self._connection.executemany(
            "INSERT INTO retired (uid, slot) VALUES (?, ?)",
            ((entry.uid, entry.slot) for entry in new.retired),
        )
        self._meta("last_uid", new.last_uid)

    def put_nic(self, nic: nics.Nic) -> None:
        nics.put_nic(self._connection, nic)

    def drop_nic(self, name: str) -> None:
        nics.drop_nic(self._connection, name)

    def serial(self, serial: int) -> None:
        self._meta("serial", serial)

    def audit(self, entry: Entry, keep: int) -> None:
        write_audit(self._connection, entry, keep)

    def role(self, role: Role) -> None:
        self._meta("role", role.text())

    def _meta(self, key: str, value: int | str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


class State:
    """Open state. Reads return plain values; `transaction` writes."""

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database = database
        self.secret = secret

    @classmethod
    def open(cls, path: Path, random_bytes: Callable[[int], bytes]) -> State:
        """The state at `path`. A new one gets a secret of 16 bytes for the kernel's hash from `random_bytes`.

        Raises StateError or Conflict as Database.open does.
        """
        database = Database.open(path)
        try:
            with database.transaction() as connection:
                row = connection.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
                secret = row[0] if row else random_bytes(SECRET_BYTES)
                if not row:
                    connection.execute("INSERT INTO meta (key, value) VALUES ('secret', ?)", (secret,))
        except BaseException:
            database.close()
            raise
        return cls(database, secret)

    def close(self) -> None:
        self._database.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A change: all or nothing. Raises StateError when it cannot be written, and then nothing was."""
        with self._database.transaction() as connection:
            yield Transaction(connection)

    def desired(self) -> Desired:
        with self._database.reading() as connection:
            return policy.read_policy(connection)

    def nics(self) -> dict[str, nics.Nic]:
        with self._database.reading() as connection:
            return nics.read_nics(connection)

    def allotment(self) -> Allotment:
        with self._database.reading() as connection:
            slots = {
                name: Slot(name, key, slot, uid)
                for name, key, slot, uid in connection.execute("SELECT name, key, slot, uid FROM slots")
            }
            retired = tuple(
                Retired(uid, slot) for uid, slot in connection.execute("SELECT uid, slot FROM retired")
            )
        return Allotment(slots, retired, self._number("last_uid"))

    def serial(self) -> int:
        return self._number("serial")

    def role(self) -> Role:
        """Under whose name the appliance works. Raises StateError for a row that says nothing known."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'role'").fetchone()
        try:
            return role_in(str(row[0])) if row else Role()
        except ValueError as error:
            raise StateError(
                f"the state is damaged: {error}", "install the Valkyrie again that wrote it"
            ) from error

    def audit(self, count: int) -> list[Entry]:
        with self._database.reading() as connection:
            return read_audit(connection, count)

    def _number(self, key: str) -> int:
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else 0
