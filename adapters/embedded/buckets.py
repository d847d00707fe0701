# SPDX-License-Identifier: Apache-2.0
"""Buckets in the file: a TAT by the file's clock, as nanoseconds and the 64ths of one that remain."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from valkyrie.adapters.asked import Ask
from valkyrie.adapters.durable import MAX_LEVEL, BucketLevel
from valkyrie.adapters.gcra import decision, take
from valkyrie.adapters.store import Decision
from valkyrie.control.cost import UNITS_A_NS

Key = tuple[int, str]  # the appliance's number and the bucket's name

READ = "SELECT tat, rest FROM buckets WHERE appliance = ? AND name = ?"
WRITE = """INSERT INTO buckets VALUES (?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET tat = excluded.tat, rest = excluded.rest"""
RAISE = f"{WRITE} WHERE (excluded.tat, excluded.rest) > (tat, rest)"
DROP = "DELETE FROM buckets WHERE appliance = ? AND name = ?"
PAGE = """SELECT name, tat, rest FROM buckets WHERE appliance = ? AND name > ? ORDER BY name LIMIT ?"""


class Buckets:
    """Those of one transaction: each is read and written once, however many calls it takes part in."""

    __slots__ = ("_changed", "_connection", "_now", "_tats")

    def __init__(self, connection: sqlite3.Connection, now_ns: int) -> None:
        self._connection = connection
        self._now = now_ns * UNITS_A_NS
        self._tats: dict[Key, int] = {}
        self._changed: set[Key] = set()

    def take(self, appliance: int, ask: Ask, store: str) -> Decision:
        """One call."""
        name, cost, n = ask
        key = (appliance, name)
        level = max(0, self._tat(key) - self._now)
        allowed, after = take(level, cost, n)
        if allowed and n:
            self._tats[key] = self._now + after
            self._changed.add(key)
        return decision(after, cost, n, allowed, store)

    def _tat(self, key: Key) -> int:
        known = self._tats.get(key)
        if known is None:
            row = self._connection.execute(READ, key).fetchone()
            known = self._tats[key] = row[0] * UNITS_A_NS + row[1] if row else 0
        return known

    def raise_to(self, appliance: int, levels: Sequence[BucketLevel]) -> None:
        """Raise TATs to these levels from now; none is lowered."""
        self.flush()
        # In the order of the table: neighbours share pages.
        rows = sorted((appliance, each.name, *self._split(each.level)) for each in levels if each.level > 0)
        self._connection.executemany(RAISE, rows)

    def drop(self, appliance: int, names: Iterable[str]) -> None:
        self.flush()
        self._connection.executemany(DROP, [(appliance, name) for name in names])

    def page(self, appliance: int, after: str, most: int) -> tuple[list[BucketLevel], str | None]:
        """Those short of full among the next so many after a name, and the last name looked at."""
        self.flush()
        rows = self._connection.execute(PAGE, (appliance, after, most)).fetchall()
        levels = [(name, tat * UNITS_A_NS + rest - self._now) for name, tat, rest in rows]
        last = rows[-1][0] if len(rows) == most else None
        return [BucketLevel(name, level) for name, level in levels if level > 0], last

    def flush(self) -> None:
        """Write what changed, and forget what is known."""
        if self._changed:
            rows = [(*key, *divmod(self._tats[key], UNITS_A_NS)) for key in self._changed]
            self._connection.executemany(WRITE, rows)
            self._changed.clear()
        self._tats.clear()

    def _split(self, level: int) -> tuple[int, int]:
        return divmod(self._now + min(level, MAX_LEVEL), UNITS_A_NS)
