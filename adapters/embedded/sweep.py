# SPDX-License-Identifier: Apache-2.0
"""Forgetting what has expired, a little with every write: full buckets, and values past their time."""

from __future__ import annotations

import sqlite3

LEAST = 128  # rows that a step is worth the while for
MOST = 1024  # rows looked at in one step
ROWS_A_WRITE = 2  # looked at for each row written: the table shrinks while it is in use

NEXT = """SELECT appliance, name, tat FROM buckets WHERE (appliance, name) > (?, ?)
  ORDER BY appliance, name LIMIT ?"""
DROP = "DELETE FROM buckets WHERE appliance = ? AND name = ?"
EXPIRED = """DELETE FROM contents WHERE id IN (SELECT id FROM contents WHERE expires <= ? LIMIT ?)"""


class Sweeper:
    """Goes round the buckets, and round again."""

    def __init__(self) -> None:
        self._at: tuple[int, str] = (0, "")
        self._due = 0

    def sweep(self, connection: sqlite3.Connection, now: int, written: int) -> None:
        """As much as so many written rows call for; in their transaction."""
        self._due = min(self._due + ROWS_A_WRITE * written, MOST)
        if self._due < LEAST:
            return
        each, self._due = self._due, 0
        rows = connection.execute(NEXT, (*self._at, each)).fetchall()
        full = [row[:2] for row in rows if row[2] < now]
        if full:
            connection.executemany(DROP, full)
        self._at = rows[-1][:2] if len(rows) == each else (0, "")
        sweep_values(connection, now, each)


def sweep_values(connection: sqlite3.Connection, now: int, most: int) -> int:
    """Forget so many expired values at most; how many."""
    return connection.execute(EXPIRED, (now, most)).rowcount
