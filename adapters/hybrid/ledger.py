# SPDX-License-Identifier: Apache-2.0
"""What this process knows of buckets it consumed lately, so that the next store can be told of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from valkyrie.adapters.limit import Limit
from valkyrie.adapters.store import Decision

MOST = 65_536  # buckets; about 20 MB when full
WORTH_S = 0.05  # a bucket that is full again so soon is full before anyone could be told

Name = tuple[bool, str, str]  # of a bucket: whether its limit is declared, the limit's name, the key


@dataclass(frozen=True, slots=True)
class Debt:
    """A bucket that is full at `full_at`, in seconds of the ledger's clock."""

    name: Name
    limit: Limit
    full_at: float

    @property
    def key(self) -> str:
        return self.name[2]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was known at a moment, and the tokens that were taken since."""

    noted: OrderedDict[Name, tuple[float, Limit]]
    spent: dict[Name, int] = field(default_factory=dict)

    def debts(self, now: float) -> Iterator[Debt]:
        """Buckets that are still short of full at `now`, those consumed last first."""
        for name, (full_at, limit) in reversed(self.noted.items()):
            if full_at - now >= WORTH_S:
                yield Debt(name, limit, full_at)


class Ledger:
    """Bounded: the bucket that was consumed least recently is forgotten first, and counted."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._noted: OrderedDict[Name, tuple[float, Limit]] = OrderedDict()
        self._open: list[Snapshot] = []
        self.forgotten = 0

    def note(self, key: str, limit: Limit, n: int, decision: Decision, now: float) -> None:
        """The bucket is as the decision on `n` tokens says; `now` in seconds of any steady clock."""
        name = (limit.declared, limit.name, key)
        if decision.allowed and n:
            for snapshot in self._open:
                if name in snapshot.noted:
                    snapshot.spent[name] = snapshot.spent.get(name, 0) + n
        if decision.reset_after < WORTH_S:
            self._noted.pop(name, None)
            return
        self._noted[name] = (now + decision.reset_after, limit)
        self._noted.move_to_end(name)
        if len(self._noted) > self._most:
            _, (full_at, _) = self._noted.popitem(last=False)
            self.forgotten += full_at > now

    def left(self, key: str, limit: Limit, now: float) -> float:
        """Seconds that the bucket is short of full as far as is known here."""
        found = self._noted.get((limit.declared, limit.name, key))
        return 0.0 if found is None else max(0.0, found[0] - now)

    def open(self) -> Snapshot:
        """All that is known at this moment; what is spent from now on is added until `close`."""
        snapshot = Snapshot(self._noted.copy())  # 17 ms when it is full
        self._open.append(snapshot)
        return snapshot

    def close(self, snapshot: Snapshot) -> None:
        self._open = [other for other in self._open if other is not snapshot]

    def __len__(self) -> int:
        return len(self._noted)
