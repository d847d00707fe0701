# SPDX-License-Identifier: Apache-2.0
"""What `set` wrote, in the file. Times are nanoseconds of the file's clock; keys lie there as bytes."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

from valkyrie.adapters.asked import INT64, MAX_TTL_MS
from valkyrie.adapters.embedded.database import VALUE_OVERHEAD
from valkyrie.adapters.embedded.sweep import sweep_values
from valkyrie.adapters.errors import ConsistencyError, StoreUnavailable
from valkyrie.control.errors import NotFound

NS_A_MS = 1_000_000
NS_A_SECOND = 1_000_000_000
SWEPT_WHEN_FULL = 4096  # expired values that a `set` which finds no room makes room of
INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")

PUT = """INSERT INTO contents (appliance, key, value, expires) VALUES (?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET value = excluded.value, expires = excluded.expires"""
GET = "SELECT value, expires FROM contents WHERE appliance = ? AND key = ? AND ifnull(expires > ?, 1)"
LOOK = "SELECT expires FROM contents WHERE appliance = ? AND key = ? AND ifnull(expires > ?, 1)"
DELETE = "DELETE FROM contents WHERE appliance = ? AND key = ?"


@dataclass(frozen=True, slots=True)
class Values:
    """Those of one appliance in one transaction. `bound`: bytes that all values of the file may take."""

    connection: sqlite3.Connection
    appliance: int
    now: int
    bound: int

    def get(self, key: bytes) -> bytes | None:
        row = self.connection.execute(GET, (self.appliance, key, self.now)).fetchone()
        return bytes(row[0]) if row else None

    def exists(self, key: bytes) -> bool:
        return self.connection.execute(LOOK, (self.appliance, key, self.now)).fetchone() is not None

    def ttl(self, key: bytes) -> float | None:
        """Raises NotFound."""
        row = self.connection.execute(LOOK, (self.appliance, key, self.now)).fetchone()
        if row is None:
            raise NotFound(
                f"there is no value under {key.decode()!r}", "it was never set, was deleted, or has expired"
            )
        return None if row[0] is None else (row[0] - self.now) / NS_A_SECOND

    def put(self, key: bytes, value: bytes, ttl_ms: int | None) -> None:
        """Raises StoreUnavailable when there is no room."""
        self._make_room(key, value)
        self._write(key, value, ttl_ms)

    def delete(self, key: bytes) -> bool:
        was = self.exists(key)
        self.connection.execute(DELETE, (self.appliance, key))
        return was

    def add(self, key: bytes, amount: int, ttl_ms: int | None) -> int:
        """Raises ConsistencyError when the value or the sum is no integer of 64 bits."""
        row = self.connection.execute(GET, (self.appliance, key, self.now)).fetchone()
        old = bytes(row[0]) if row else b"0"
        if not INTEGER.fullmatch(old) or int(old) not in INT64:
            what = "cannot add to a value that is no integer of 64 bits"
            raise ConsistencyError(what, "delete it, or use another key")
        total = int(old) + amount
        if total not in INT64:
            raise ConsistencyError(
                f"the sum {total} does not fit 64 bits", "delete the value, or use another key"
            )
        value = b"%d" % total
        if row is None:
            self._make_room(key, value)
            self._write(key, value, ttl_ms)
        else:
            self.connection.execute(PUT, (self.appliance, key, value, row[1]))
        return total

    def _write(self, key: bytes, value: bytes, ttl_ms: int | None) -> None:
        # A migration brings what another store tells.
        expires = None if ttl_ms is None else self.now + min(ttl_ms, MAX_TTL_MS) * NS_A_MS
        self.connection.execute(PUT, (self.appliance, key, value, expires))

    def _make_room(self, key: bytes, value: bytes) -> None:
        """A value that is replaced counts until it is: one that fits the whole bound can be written."""
        needed = VALUE_OVERHEAD + len(key) + len(value)
        while self._used() + needed > self.bound:
            if self._freed_by(key) + self.bound >= self._used() + needed:
                return
            if not sweep_values(self.connection, self.now, SWEPT_WHEN_FULL):
                raise StoreUnavailable(
                    f"the store's values fill their {self.bound >> 20} MiB",
                    "raise store.embedded.max_values_mb, give values a TTL, or delete some",
                )

    def _used(self) -> int:
        return int(self.connection.execute("SELECT bytes FROM usage").fetchone()[0])

    def _freed_by(self, key: bytes) -> int:
        found = "SELECT length(value) FROM contents WHERE appliance = ? AND key = ?"
        row = self.connection.execute(found, (self.appliance, key)).fetchone()
        return VALUE_OVERHEAD + len(key) + int(row[0]) if row else 0
