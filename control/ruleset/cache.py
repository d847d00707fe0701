# SPDX-License-Identifier: Apache-2.0
"""What was compiled last, kept by what it was made from: a changed rate compiles no prefix again."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar

from valkyrie.control.ruleset.addresses import Nests

T = TypeVar("T")


class Same:
    """Stands for objects that are costly to compare: equal when they are the very same ones."""

    def __init__(self, *things: object) -> None:
        self.things = things

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same) or len(self.things) != len(other.things):
            return False
        return all(ours is theirs for ours, theirs in zip(self.things, other.things, strict=True))

    __hash__ = None  # type: ignore[assignment]


class CompileCache:
    """Parts of rulesets by name, one version of each. For one thread at a time."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, ...], tuple[object, Any]] = {}
        self._nests: dict[str, Nests] = {}

    def get(self, name: tuple[str, ...], made_from: object, make: Callable[[], T]) -> T:
        """The part of this name, made again only if what it is made from differs."""
        kept = self._parts.get(name)
        if kept is None or kept[0] != made_from:
            kept = (made_from, make())
            self._parts[name] = kept
        part: T = kept[1]
        return part

    def nests(self, name: str) -> Nests:
        return self._nests.setdefault(name, Nests())

    def forget(self, limits: Container[str]) -> None:
        """Drop the parts named (kind, limit) of limits that are not among these."""
        for name in [name for name in self._parts if len(name) > 1 and name[1] not in limits]:
            del self._parts[name]
