# SPDX-License-Identifier: Apache-2.0
"""Who is dropped most, from sampled drop events: the space-saving sketch with decay.

Keeps at most SIZE sources. A newcomer takes the place and the count of the smallest, so a count is
never too low and too high by at most total / SIZE; halving every HALF_LIFE_S lets the past fade.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

SIZE = 1024
HALF_LIFE_S = 10.0


class Talkers:
    """`seconds` tells a time that nobody sets. Counts are of events times the sampling."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._counts: dict[tuple[str, str], float] = {}
        # Each source once, with a count that it had: its own is no smaller.
        self._heap: list[tuple[float, tuple[str, str]]] = []
        self._halved = seconds()

    def add(self, source: str, limit: str, weight: float) -> None:
        """Some logarithmic steps, however many newcomers there are: forged sources are all that."""
        self._decay()
        where = (source, limit)
        if where in self._counts:
            self._counts[where] += weight
        elif len(self._counts) < SIZE:
            self._counts[where] = weight
            heapq.heappush(self._heap, (weight, where))
        else:
            self._take_smallest(where, weight)

    def _take_smallest(self, where: tuple[str, str], weight: float) -> None:
        while (count := self._counts[self._heap[0][1]]) != self._heap[0][0]:
            heapq.heapreplace(self._heap, (count, self._heap[0][1]))
        del self._counts[self._heap[0][1]]
        self._counts[where] = count + weight
        heapq.heapreplace(self._heap, (count + weight, where))

    def top(self, count: int) -> list[dict[str, Any]]:
        """The largest, as {key, limit, dropped}: drops of about the last HALF_LIFE_S seconds."""
        self._decay()
        largest = heapq.nlargest(count, self._counts.items(), key=lambda entry: entry[1])
        return [
            {"key": source, "limit": limit, "dropped": round(n)} for (source, limit), n in largest if n >= 1
        ]

    def _decay(self) -> None:
        halvings = int((self._seconds() - self._halved) / HALF_LIFE_S)
        if halvings <= 0:
            return
        self._halved += halvings * HALF_LIFE_S
        factor = 0.5 ** min(halvings, 64)
        self._counts = {where: n * factor for where, n in self._counts.items() if n * factor >= 0.5}
        self._heap = [(n, where) for where, n in self._counts.items()]
        heapq.heapify(self._heap)
