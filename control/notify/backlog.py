# SPDX-License-Identifier: Apache-2.0
"""What waits for one adapter: bounded, the most urgent first, in order within one key. Pure.

Order within a key matters: a `resolved` that overtakes its `firing` would leave a wrong state behind.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from valkyrie.adapters.notify.message import Message, Severity


@dataclass(frozen=True, slots=True)
class Entry:
    """A message for one adapter; `queued` in wall seconds. Later entries have larger ids. It counts as queued
    `age` seconds before `taken`, by a clock that nobody sets.
    """

    id: int
    adapter: str
    message: Message
    queued: float
    age: float = field(default=0.0, compare=False)
    taken: float = field(default_factory=time.monotonic, compare=False)

    def waited(self, now: float) -> float:
        """Seconds up to `now` of time.monotonic."""
        return self.age + now - self.taken


class Backlog:
    """At most `most` entries, besides the one that is being delivered."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._by_severity: dict[Severity, dict[int, Entry]] = {one: {} for one in sorted(Severity)}
        self._by_key: dict[str, dict[int, Entry]] = {}
        self._held: dict[str, float] = {}
        self._busy: Entry | None = None

    def __len__(self) -> int:
        return sum(map(len, self._by_severity.values()))

    @property
    def entries(self) -> list[Entry]:
        """By id."""
        return sorted((e for held in self._by_severity.values() for e in held.values()), key=lambda e: e.id)

    def add(self, entry: Entry) -> list[Entry]:
        """Which entries had to go for it: the oldest of the least severity, perhaps itself."""
        self._by_severity[entry.message.severity][entry.id] = entry
        self._by_key.setdefault(entry.message.key, {})[entry.id] = entry
        gone = []
        while len(self) - (self._busy is not None) > self.most:
            victim = next(
                e for held in self._by_severity.values() for e in held.values() if e is not self._busy
            )
            self.remove(victim)
            gone.append(victim)
        return gone

    def take(self, now: float) -> Entry | None:
        """The next: the oldest of the key that has the most severe entry. It stays until `remove`."""
        for severity in reversed(self._by_severity):
            for entry in self._by_severity[severity].values():
                if self._held.get(entry.message.key, now) <= now:
                    self._busy = next(iter(self._by_key[entry.message.key].values()))
                    return self._busy
        self._busy = None
        return None

    def release(self) -> None:
        """Nothing is being delivered."""
        self._busy = None

    def hold(self, key: str, until: float) -> None:
        """Pass over this key's entries for a while: one that never goes through must stop no other."""
        self._held[key] = until

    def unhold(self) -> None:
        self._held.clear()

    @property
    def next_due(self) -> float | None:
        """When an entry that is held may go; None if none is."""
        return min((self._held[key] for key in self._by_key if key in self._held), default=None)

    def remove(self, entry: Entry) -> None:
        self._by_severity[entry.message.severity].pop(entry.id, None)
        same = self._by_key.get(entry.message.key, {})
        same.pop(entry.id, None)
        if not same:
            self._by_key.pop(entry.message.key, None)
            self._held.pop(entry.message.key, None)
        if self._busy is entry:
            self._busy = None
