# SPDX-License-Identifier: Apache-2.0
"""Repeating calls that may be repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from valkyrie.adapters.errors import StoreError

BASE_S = 0.01
CAP_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with full jitter: the wait is random between 0 and a bound that doubles."""

    times: int
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]  # uniform in [0, 1)
    clock: Callable[[], float]

    async def call(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        """The first result of `attempt`. An error that is not retryable, the last one, or one after which
        the deadline leaves no time to wait is raised.
        """
        for turn in range(self.times):
            try:
                return await attempt()
            except StoreError as error:
                wait = self.random() * min(CAP_S, BASE_S * 2**turn)
                if not error.retryable or self.clock() + wait >= deadline:
                    raise
            await self.sleep(wait)
        return await attempt()
