# SPDX-License-Identifier: Apache-2.0
"""Attachments as they were asked for: the NIC's slot, the mode, who is protected, and until when on trial."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from valkyrie.control import abi
from valkyrie.control.errors import Conflict

NIC_SLOTS = abi.MAX_NICS


@dataclass(frozen=True)
class Nic:
    """`deadline` in wall seconds, `confirm` in seconds: unless confirmed by then it is detached."""

    name: str
    slot: int
    mode: str
    protect: tuple[str, ...] = ()
    confirm: float | None = None
    deadline: float | None = None

    def remaining(self, wall_now: float) -> float | None:
        """Seconds until it is detached, by the wall clock and at most `confirm`; None: it stays.

        For a daemon that has just started. One that runs counts by a clock that nobody sets.
        """
        if self.deadline is None or self.confirm is None:
            return None
        return max(0.0, min(self.deadline - wall_now, self.confirm))


def free_slot(nics: dict[str, Nic]) -> int:
    """The lowest NIC slot that is free; 0 means: not one of ours. Raises Conflict when 63 are attached."""
    taken = {nic.slot for nic in nics.values()}
    for slot in range(1, NIC_SLOTS):
        if slot not in taken:
            return slot
    raise Conflict(f"{NIC_SLOTS - 1} NICs are attached, which is all there is room for", "detach one first")


def read_nics(connection: sqlite3.Connection) -> dict[str, Nic]:
    protects: dict[str, list[str]] = {}
    for name, prefix in connection.execute("SELECT nic, prefix FROM protects ORDER BY nic, prefix"):
        protects.setdefault(name, []).append(prefix)
    return {
        name: Nic(name, slot, mode, tuple(protects.get(name, ())), confirm, deadline)
        for name, slot, mode, confirm, deadline in connection.execute(
            "SELECT name, slot, mode, confirm, deadline FROM nics ORDER BY name"
        )
    }


def put_nic(connection: sqlite3.Connection, nic: Nic) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO nics (name, slot, mode, confirm, deadline) VALUES (?, ?, ?, ?, ?)",
        (nic.name, nic.slot, nic.mode, nic.confirm, nic.deadline),
    )
    connection.execute("DELETE FROM protects WHERE nic = ?", (nic.name,))
    connection.executemany(
        "INSERT INTO protects (nic, prefix) VALUES (?, ?)", ((nic.name, prefix) for prefix in nic.protect)
    )


def drop_nic(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM nics WHERE name = ?", (name,))
    connection.execute("DELETE FROM protects WHERE nic = ?", (name,))
