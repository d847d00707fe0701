# SPDX-License-Identifier: Apache-2.0
"""What callers did at one store, told to the other behind their backs, and told again until it took it.

Memory is bounded: of more than MOST buckets or keys that wait, further ones are counted and left to the
comparison that comes before the switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import islice

from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.migrate.carry import carry_buckets, carry_values
from valkyrie.adapters.migrate.compare import level_at
from valkyrie.adapters.migrate.side import BUCKETS_AT_ONCE, VALUES_AT_ONCE, Side

log = logging.getLogger(__name__)

MOST = 65_536
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0  # after a failure, doubled each time
END_S = 1.0  # for what waits when the mirror ends

SideOf = Callable[[], Side]  # raises StoreError while there is none


class Mirror:
    """From `primary` to `secondary`. Callers only note; a task of the mirror's does the rest."""

    def __init__(
        self, primary: SideOf, secondary: SideOf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._primary = primary
        self._secondary = secondary
        self._clock = clock
        self._full: dict[str, float] = {}  # by bucket, when it is full
        self._unsure: dict[str, None] = {}  # buckets that the primary must be asked of
        self._keys: dict[str, None] = {}
        self._noted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.told = 0
        self.failed = 0  # calls to the secondary
        self.lost = 0  # not remembered

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Tell what waits, if that is soon done."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(END_S):
                while self.waiting:
                    await self._tell()

    @property
    def waiting(self) -> int:
        return len(self._full) + len(self._unsure) + len(self._keys)

    def bucket(self, name: str, reset_after: float) -> None:
        """It is full so many seconds from now."""
        full = self._clock() + reset_after
        known = self._full.get(name)
        if known is None and len(self._full) >= MOST:
            self.lost += 1
            return
        if known is None or full > known:
            self._full[name] = full
            self._noted.set()

    def unsure(self, name: str) -> None:
        """Tokens of it may have been taken."""
        self._note(self._unsure, name)

    def value(self, key: str) -> None:
        """What lies under it was, or may have been, changed."""
        self._note(self._keys, key)

    def _note(self, where: dict[str, None], name: str) -> None:
        if name not in where and len(where) >= MOST:
            self.lost += 1
            return
        where[name] = None
        self._noted.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            await self._noted.wait()
            self._noted.clear()
            try:
                while self.waiting:
                    await self._tell()
                pause = FIRST_PAUSE_S
            except StoreError as error:
                self.failed += 1
                log.debug("the other store of the migration was not told: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                self._noted.set()

    async def _tell(self) -> None:
        """A piece of what waits; it waits until it was taken. What is noted meanwhile is told again."""
        primary, secondary = self._primary(), self._secondary()
        if self._full:
            full = dict(islice(self._full.items(), BUCKETS_AT_ONCE))
            now = self._clock()
            await secondary.raise_buckets(
                [BucketLevel(name, level_at(when, now)) for name, when in full.items()]
            )
            for name, when in full.items():
                if self._full.get(name) == when:
                    del self._full[name]
            self.told += len(full)
        if self._unsure:
            await self._taken(self._unsure, lambda names: carry_buckets(primary, secondary, names))
        if self._keys:
            await self._taken(self._keys, lambda keys: carry_values(primary, secondary, keys, self._clock))

    async def _taken(self, where: dict[str, None], tell: Callable[[list[str]], Awaitable[object]]) -> None:
        names = list(islice(where, VALUES_AT_ONCE))
        for name in names:
            del where[name]
        try:
            await tell(names)
        except BaseException:
            for name in names:
                where[name] = None
            raise
        self.told += len(names)
