# SPDX-License-Identifier: Apache-2.0
"""One round: find what the store must be told, and tell it in batches, at a pace that others do not feel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from valkyrie.adapters.durable import BucketLevel, DurableStore
from valkyrie.control import abi
from valkyrie.control.durable.changes import Owed, Places, Seen, Shadow, Table, look, owed
from valkyrie.control.durable.names import names

LOOK = 16_384  # buckets that are copied out of the table at once, in a thread
# Names are made in the event loop's thread, so many at once: 0.3 ms. Another thread would hold the
# interpreter, and so the loop, for 5 ms at a time.
NAMED = 250
TOLD_AGAIN_S = 300.0  # whatever a store loses in silence, it is told again within this time


@dataclass
class Totals:
    """Since start, but for `owed`: what the round under way has still to write."""

    written: int = 0
    dropped: int = 0
    rounds: int = 0
    owed: int = 0


class Pace:
    """So many a second, counted from the first."""

    def __init__(self, per_second: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._seconds = seconds
        self._began = seconds()
        self._done = 0

    async def after(self, count: int) -> None:
        self._done += count
        due = self._began + self._done / self._per_second
        await asyncio.sleep(max(0.0, due - self._seconds()))


class Rounds:
    """The shadow of one table, and what it is worth to one store after the other."""

    def __init__(self, table: Table, mono_ns: Callable[[], int]) -> None:
        self._table = table
        self._mono_ns = mono_ns
        self._next_again = 0
        self._groups: dict[int, str] = {}  # also of limits that are gone: their buckets must be dropped
        self.shadow = Shadow(len(table.buckets))
        self.totals = Totals()

    def table_is_told(self) -> None:
        """The table was filled from the store: there is nothing in it that the store does not hold."""
        self.shadow.all_told(self._table.buckets["tat"])

    async def run(
        self,
        store: DurableStore,
        token: str,
        groups: Mapping[int, str],
        *,
        interval_s: float,
        per_second: int,
        between: Callable[[], Awaitable[None]],
    ) -> None:
        """Tell the store all that it must know. `between` is awaited after each batch. Raises StoreError;
        what was not written by then stays owed.

        Drops come first: a limit that was made anew may have buckets of the same names.
        """
        self._groups.update(groups)
        found = await asyncio.to_thread(self._find, interval_s)
        self.totals.owed = len(found)
        pace = Pace(per_second)
        for places in _pieces(found.drop):
            seen = await asyncio.to_thread(look, self._table, places)
            await self._drop(store, token, seen, pace, between)
            self.totals.owed -= len(places)
        for places in _pieces(found.write):
            seen = await asyncio.to_thread(look, self._table, places)
            await self._write(store, token, seen, groups, pace, between)
            self.totals.owed -= len(places)
        self.totals.rounds += 1

    def _find(self, interval_s: float) -> Owed:
        slack = round(interval_s * 1e9) << abi.TIME_SHIFT
        floor = (self._mono_ns() << abi.TIME_SHIFT) + slack
        return owed(self._table.buckets["tat"], self.shadow, floor, slack, self._again(interval_s))

    def _again(self, interval_s: float) -> range:
        """The sets whose turn it is to be told once more."""
        sets = len(self.shadow.told)
        count = max(1, -(-sets // max(1, int(TOLD_AGAIN_S / interval_s))))
        first = self._next_again
        self._next_again = first + count if first + count < sets else 0
        return range(first, min(sets, first + count))

    async def _drop(
        self, store: DurableStore, token: str, seen: Seen, pace: Pace, between: Callable[[], Awaitable[None]]
    ) -> None:
        for part in _parts(seen, store.batch):
            named = [name for name in names(part.keys, self._groups) if name is not None]
            await store.drop_buckets(named, token)
            self.shadow.put(part.places, 0)
            self.totals.dropped += len(named)
            await pace.after(len(part))
            await between()

    async def _write(
        self,
        store: DurableStore,
        token: str,
        seen: Seen,
        groups: Mapping[int, str],
        pace: Pace,
        between: Callable[[], Awaitable[None]],
    ) -> None:
        for part in _parts(seen, store.batch):
            levels: list[BucketLevel] = []
            for some in _parts(part, NAMED):
                levels += self._levels(some, groups)
                await asyncio.sleep(0)
            if levels:
                await store.write_buckets(levels, token)
            self.shadow.put(part.places, part.tats)
            self.totals.written += len(levels)
            await pace.after(len(part))
            await between()

    def _levels(self, part: Seen, groups: Mapping[int, str]) -> list[BucketLevel]:
        """Levels as of now, so that what a batch waited for its turn is not added to them."""
        now = np.uint64(self._mono_ns() << abi.TIME_SHIFT)
        left = np.where(part.tats > now, part.tats - now, np.uint64(0)).tolist()
        named = names(part.keys, groups)
        return [
            BucketLevel(name, level)
            for name, level in zip(named, left, strict=True)
            if name is not None and level > 0
        ]


def _pieces(places: Places) -> Sequence[Places]:
    return [places[first : first + LOOK] for first in range(0, len(places), LOOK)]


def _parts(seen: Seen, count: int) -> Sequence[Seen]:
    return [seen.part(first, count) for first in range(0, len(seen), count)]
