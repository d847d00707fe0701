# SPDX-License-Identifier: Apache-2.0
"""What differs between two policies, for people and programs to read before it happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from valkyrie.control.limits import Desired

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@dataclass(frozen=True)
class Change:
    """`change` is added, removed or changed; `fields` of a changed one: name -> (old, new)."""

    change: str
    kind: str
    name: str
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Diff:
    """Changes by kind (limits first) and name."""

    changes: tuple[Change, ...]

    @property
    def added(self) -> tuple[Change, ...]:
        return self._of("added")

    @property
    def removed(self) -> tuple[Change, ...]:
        return self._of("removed")

    @property
    def changed(self) -> tuple[Change, ...]:
        return self._of("changed")

    def __bool__(self) -> bool:
        return bool(self.changes)

    def entries(self) -> list[dict[str, Any]]:
        """As JSON: `fields` only where something changed, each [old, new]."""
        return [
            {"change": entry.change, "kind": entry.kind, "name": entry.name}
            | ({"fields": {name: list(pair) for name, pair in entry.fields.items()}} if entry.fields else {})
            for entry in self.changes
        ]

    def lines(self) -> list[str]:
        """For people: a line for each, and below it the fields that change."""
        lines = []
        for entry in self.changes:
            lines.append(f"{SIGNS[entry.change]} {entry.kind} {entry.name}")
            lines += [
                f"    {name}: {_shown(old)} -> {_shown(new)}" for name, (old, new) in entry.fields.items()
            ]
        return lines

    def _of(self, change: str) -> tuple[Change, ...]:
        return tuple(entry for entry in self.changes if entry.change == change)


def diff(old: Desired, new: Desired) -> Diff:
    """What must happen to `old` to become `new`."""
    return Diff(
        (
            *_changes("limit", _named(old.limits, "name"), _named(new.limits, "name")),
            *_changes("override", _overrides(old, new), _overrides(new, old)),
            *_changes("exempt", _named(old.exempts, "prefix"), _named(new.exempts, "prefix")),
            *_changes("ban", _named(old.bans, "prefix"), _named(new.bans, "prefix")),
            *_changes("protect", dict.fromkeys(old.protects), dict.fromkeys(new.protects)),
        )
    )


def _named(entries: Iterable[BaseModel], field: str) -> dict[str, BaseModel]:
    return {getattr(entry, field): entry for entry in entries}


def _overrides(ours: Desired, theirs: Desired) -> dict[str, BaseModel]:
    """Nothing where both have the very same ones: 100,000 need not be looked at."""
    if ours.overrides is theirs.overrides:
        return {}
    return {f"{entry.limit} {entry.prefix}": entry for entry in ours.overrides}


def _changes(
    kind: str, old: Mapping[str, BaseModel | None], new: Mapping[str, BaseModel | None]
) -> Iterable[Change]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            yield Change("added" if name in new else "removed", kind, name, {})
            continue
        before, after = old[name], new[name]
        if before is not after and before is not None and after is not None and before != after:
            pairs = {
                field: (getattr(before, field), getattr(after, field)) for field in type(after).model_fields
            }
            yield Change("changed", kind, name, {f: pair for f, pair in pairs.items() if pair[0] != pair[1]})


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
