# SPDX-License-Identifier: Apache-2.0
"""What people decided, in rows: limits, overrides, exempts and bans, read whole and written by difference."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any

from valkyrie.control.errors import InvalidInput, StateError
from valkyrie.control.limits import Ban, Desired, Exempt, Limit, Override

_LIMIT_COLUMNS = ("name", "match", "key", "rate", "burst", "action", "ban_for", "measure")
_OVERRIDE_FIELDS = set(Override.model_fields)


@dataclass(frozen=True)
class PolicyChange:
    """A difference to write: what is put replaces what has the same name or prefix."""

    put_limits: Sequence[Limit] = ()
    drop_limits: Sequence[str] = ()
    put_overrides: Sequence[Override] = ()
    drop_overrides: Sequence[tuple[str, str]] = ()  # limit, prefix
    put_exempts: Sequence[Exempt] = ()
    drop_exempts: Sequence[str] = ()
    put_bans: Sequence[Ban] = ()
    drop_bans: Sequence[str] = ()


def read_policy(connection: sqlite3.Connection) -> Desired:
    """The desired state without protects, sorted as Desired wants it."""
    limits = connection.execute(f"SELECT {', '.join(_LIMIT_COLUMNS)} FROM limits ORDER BY name")  # noqa: S608
    overrides = connection.execute(
        "SELECT limit_name, prefix, rate, burst FROM overrides ORDER BY limit_name, prefix"
    )
    exempts = connection.execute("SELECT prefix, until, note FROM exempts ORDER BY prefix")
    bans = connection.execute("SELECT prefix, until, note FROM bans ORDER BY prefix")
    # The rows were checked when they were written: 100,000 overrides need no second validation. They share
    # what is the same in all of them, which halves the memory they take.
    return Desired(
        limits=tuple(_limit(dict(zip(_LIMIT_COLUMNS, row, strict=True))) for row in limits),
        overrides=tuple(
            Override.model_construct(
                _OVERRIDE_FIELDS,
                limit=intern(limit),
                prefix=prefix,
                rate=intern(rate),
                burst=burst and intern(burst),
            )
            for limit, prefix, rate, burst in overrides
        ),
        exempts=tuple(Exempt(prefix=prefix, until=until, note=note) for prefix, until, note in exempts),
        bans=tuple(Ban(prefix=prefix, until=until, note=note) for prefix, until, note in bans),
    )


def _limit(row: dict[str, Any]) -> Limit:
    try:
        return Limit(**row)
    except InvalidInput as error:
        raise StateError(
            f"limit {row['name']} in the state cannot be used: {error.what}",
            f"{error.hint}; install the Valkyrie again that wrote it, and set the limit anew",
        ) from error


def write_policy(connection: sqlite3.Connection, change: PolicyChange) -> None:
    """Write `change` inside the caller's transaction."""
    execute_all = connection.executemany
    execute_all("DELETE FROM limits WHERE name = ?", ((name,) for name in change.drop_limits))
    execute_all("DELETE FROM overrides WHERE limit_name = ?", ((name,) for name in change.drop_limits))
    execute_all("DELETE FROM overrides WHERE limit_name = ? AND prefix = ?", change.drop_overrides)
    execute_all("DELETE FROM exempts WHERE prefix = ?", ((prefix,) for prefix in change.drop_exempts))
    execute_all("DELETE FROM bans WHERE prefix = ?", ((prefix,) for prefix in change.drop_bans))
    marks = ", ".join("?" * len(_LIMIT_COLUMNS))
    execute_all(
        f"INSERT OR REPLACE INTO limits ({', '.join(_LIMIT_COLUMNS)}) VALUES ({marks})",  # noqa: S608
        (tuple(getattr(limit, column) for column in _LIMIT_COLUMNS) for limit in change.put_limits),
    )
    execute_all(
        "INSERT OR REPLACE INTO overrides (limit_name, prefix, rate, burst) VALUES (?, ?, ?, ?)",
        ((entry.limit, entry.prefix, entry.rate, entry.burst) for entry in change.put_overrides),
    )
    _put_guards(connection, "exempts", change.put_exempts)
    _put_guards(connection, "bans", change.put_bans)


def _put_guards(connection: sqlite3.Connection, table: str, entries: Iterable[Exempt | Ban]) -> None:
    connection.executemany(
        f"INSERT OR REPLACE INTO {table} (prefix, until, note) VALUES (?, ?, ?)",  # noqa: S608
        ((entry.prefix, entry.until, entry.note) for entry in entries),
    )


def change_between(old: Desired, new: Desired) -> PolicyChange:
    """What turns the rows of `old` into those of `new`."""
    old_limits = {limit.name: limit for limit in old.limits}
    new_names = {limit.name for limit in new.limits}
    # A tuple that was carried over is the same object: nothing to compare among its 100,000 entries.
    same = new.overrides is old.overrides
    old_overrides = {} if same else {(entry.limit, entry.prefix): entry for entry in old.overrides}
    new_overrides = {} if same else {(entry.limit, entry.prefix): entry for entry in new.overrides}
    old_exempts = {entry.prefix: entry for entry in old.exempts}
    new_exempts = {entry.prefix: entry for entry in new.exempts}
    old_bans = {entry.prefix: entry for entry in old.bans}
    new_bans = {entry.prefix: entry for entry in new.bans}
    return PolicyChange(
        put_limits=[limit for limit in new.limits if old_limits.get(limit.name) != limit],
        drop_limits=[name for name in old_limits if name not in new_names],
        put_overrides=[
            entry
            for where, entry in new_overrides.items()
            if (before := old_overrides.get(where)) is not entry and before != entry
        ],
        drop_overrides=[where for where in old_overrides if where not in new_overrides],
        put_exempts=[entry for prefix, entry in new_exempts.items() if old_exempts.get(prefix) != entry],
        drop_exempts=[prefix for prefix in old_exempts if prefix not in new_exempts],
        put_bans=[entry for prefix, entry in new_bans.items() if old_bans.get(prefix) != entry],
        drop_bans=[prefix for prefix in old_bans if prefix not in new_bans],
    )
