# SPDX-License-Identifier: Apache-2.0
"""Who changed what: entries beside the state, written in the transaction of the change itself."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from valkyrie.control.telemetry.spans import note

MAX_DETAIL = 4096  # characters; a change of 100,000 overrides is told by its count


@dataclass(frozen=True)
class Actor:
    """The peer that asked, by the kernel's word; the daemon itself is pid 0 with the user `valkyried`."""

    uid: int
    user: str
    pid: int


DAEMON = Actor(0, "valkyried", 0)


@dataclass(frozen=True)
class Entry:
    """`at` in wall seconds; `detail` is JSON text of at most MAX_DETAIL characters; `id` 0: not written."""

    at: float
    actor: Actor
    action: str
    target: str
    detail: str
    id: int = 0


def entry(at: float, actor: Actor, action: str, target: str, detail: dict[str, Any]) -> Entry:
    text = json.dumps(detail, separators=(",", ":"), default=str)
    if len(text) > MAX_DETAIL:
        text = json.dumps({"too_long": len(text), "fields": sorted(detail)[:32]})
    return Entry(at, actor, action, target[:256], text)


def write_audit(connection: sqlite3.Connection, written: Entry, keep: int) -> None:
    """Append, and forget all but the newest `keep`."""
    actor = written.actor
    cursor = connection.execute(
        "INSERT INTO audit (at, uid, user, pid, action, target, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (written.at, actor.uid, actor.user, actor.pid, written.action, written.target, written.detail),
    )
    note("valkyrie.audit.id", cursor.lastrowid or 0)
    connection.execute("DELETE FROM audit WHERE id <= ?", ((cursor.lastrowid or 0) - keep,))


def read_audit(connection: sqlite3.Connection, count: int) -> list[Entry]:
    """The newest `count` entries, newest first."""
    rows = connection.execute(
        "SELECT id, at, uid, user, pid, action, target, detail FROM audit ORDER BY id DESC LIMIT ?", (count,)
    )
    return [
        Entry(at, Actor(uid, user, pid), action, target, detail, number)
        for number, at, uid, user, pid, action, target, detail in rows
    ]
