# SPDX-License-Identifier: Apache-2.0
"""Who syncs under an appliance's name, and the appliance's documents."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from valkyrie.adapters.durable import Owner
from valkyrie.adapters.errors import ConsistencyError, OwnedByAnother

NS_A_SECOND = 1_000_000_000

CLAIM = "UPDATE appliances SET token = ?, node = ?, epoch = epoch + 1, heard = ? WHERE id = ?"
DOCUMENT = "SELECT content FROM documents WHERE appliance = ? AND name = ?"
PUT_DOCUMENT = """INSERT INTO documents VALUES (?, ?, ?)
  ON CONFLICT DO UPDATE SET content = excluded.content"""


def number_of(connection: sqlite3.Connection, appliance: str) -> int:
    """What the tables call the appliance; made up if it is new. In a transaction."""
    connection.execute("INSERT INTO appliances (name) VALUES (?) ON CONFLICT DO NOTHING", (appliance,))
    return int(connection.execute("SELECT id FROM appliances WHERE name = ?", (appliance,)).fetchone()[0])


@dataclass(frozen=True, slots=True)
class Ownership:
    """Of one appliance in one transaction, at an instant of the file's clock (ns)."""

    connection: sqlite3.Connection
    appliance: int
    now: int

    def owner(self) -> Owner | None:
        token, node, epoch, heard = self.connection.execute(
            "SELECT token, node, epoch, heard FROM appliances WHERE id = ?", (self.appliance,)
        ).fetchone()
        if token is None:
            return None
        return Owner(token, node, epoch, max(0, self.now - heard) / NS_A_SECOND)

    def claim(self, node: str, token: str, takeover: bool, silent_s: float) -> Owner:
        present = self.owner()
        if present is not None and present.token != token and not takeover and present.silent_s < silent_s:
            raise OwnedByAnother(
                f"{present.node} syncs under this appliance's name, heard of {present.silent_s:.1f} s ago",
                "give each appliance a name of its own (store.name), stop the other one, or take over",
            )
        self.connection.execute(CLAIM, (token, node, self.now, self.appliance))
        (epoch,) = self.connection.execute(
            "SELECT epoch FROM appliances WHERE id = ?", (self.appliance,)
        ).fetchone()
        return Owner(token, node, epoch, 0.0)

    def check(self, token: str) -> None:
        """Raises ConsistencyError if the token is not the owner's."""
        present = self.owner()
        if present is None or present.token != token:
            who = "nobody does" if present is None else f"{present.node} does"
            raise (ConsistencyError if present is None else OwnedByAnother)(
                f"this node syncs under the appliance's name no more: {who}", "claim the name again"
            )

    def renew(self, token: str) -> None:
        self.check(token)
        self.connection.execute("UPDATE appliances SET heard = ? WHERE id = ?", (self.now, self.appliance))

    def release(self, token: str) -> None:
        self.connection.execute(
            "UPDATE appliances SET token = NULL WHERE id = ? AND token = ?", (self.appliance, token)
        )

    def document(self, name: str) -> bytes | None:
        row = self.connection.execute(DOCUMENT, (self.appliance, name)).fetchone()
        return bytes(row[0]) if row else None

    def put_document(self, name: str, content: bytes, token: str) -> None:
        self.check(token)
        self.connection.execute(PUT_DOCUMENT, (self.appliance, name, content))
