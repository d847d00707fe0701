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
    """`wall` gives seconds. Counts are of events times the sampling."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._counts: dict[tuple[str, str], float] = {}
        self._halved = wall()

    def add(self, source: str, limit: str, weight: float) -> None:
        self._decay()
        where = (source, limit)
        if where in self._counts:
            self._counts[where] += weight
        elif len(self._counts) < SIZE:
            self._counts[where] = weight
        else:
            smallest = min(self._counts, key=self._counts.__getitem__)
            self._counts[where] = self._counts.pop(smallest) + weight

    def top(self, count: int) -> list[dict[str, Any]]:
        """The largest, as {key, limit, dropped}: drops of about the last HALF_LIFE_S seconds."""
        self._decay()
        largest = heapq.nlargest(count, self._counts.items(), key=lambda entry: entry[1])
        return [
            {"key": source, "limit": limit, "dropped": round(n)} for (source, limit), n in largest if n >= 1
        ]

    def _decay(self) -> None:
        halvings = int((self._wall() - self._halved) / HALF_LIFE_S)
        if halvings <= 0:
            return
        self._halved += halvings * HALF_LIFE_S
        factor = 0.5 ** min(halvings, 64)
        self._counts = {where: n * factor for where, n in self._counts.items() if n * factor >= 0.5}
