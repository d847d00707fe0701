# SPDX-License-Identifier: Apache-2.0
"""How long calls took, round by round. A figure is the median of the rounds' own, so that what else the
machine did in one of them counts little.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from statistics import median


def quantile(taken: Iterable[float], percent: float) -> float:
    """By rank, of sorted values."""
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass
class Times:
    """Nanoseconds of each call; `us` are microseconds."""

    rounds: list[list[int]] = field(default_factory=list)

    def us(self, percent: float) -> float:
        return median(quantile(taken, percent) for taken in self.rounds) / 1000

    async def calls(self, count: int, call: Callable[[int], Awaitable[object]]) -> None:
        """One more round, of calls one after the other."""
        taken: list[int] = []
        clock = time.perf_counter_ns
        for number in range(count):
            began = clock()
            await call(number)
            taken.append(clock() - began)
        self.rounds.append(taken)
