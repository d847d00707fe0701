# SPDX-License-Identifier: Apache-2.0
"""Notes that were told since the last look, in bounded memory: by kind, how many, and the newest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_KINDS = 64
MOST_TEXT = 256
KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
NONE = ("drop", "alert")  # packets, and what alerts tell themselves


@dataclass(frozen=True, slots=True)
class Notice:
    """Notes of one kind. `what` is the newest."""

    count: int
    what: str

    def text(self) -> str:
        return self.what if self.count == 1 else f"{self.what} (and {self.count - 1} more)"


class Tally:
    """Each note costs the same, however many there are; kinds beyond MOST_KINDS are not counted apart."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, str]] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        kind = str(event.get("kind", ""))
        if kind in NONE or not KIND.fullmatch(kind):
            return
        count, _ = self._told.get(kind, (0, ""))
        if count or len(self._told) < MOST_KINDS:
            self._told[kind] = (count + 1, str(event.get("what", ""))[:MOST_TEXT])

    def take(self) -> dict[str, Notice]:
        """All since the last time."""
        told, self._told = self._told, {}
        return {kind: Notice(*one) for kind, one in told.items()}


def tallied(events: Iterable[Mapping[str, Any]]) -> dict[str, Notice]:
    tally = Tally()
    for event in events:
        tally.hear(event)
    return tally.take()
