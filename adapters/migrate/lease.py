# SPDX-License-Identifier: Apache-2.0
"""Until when what was read of a migration's note may be decided by, and the looks that renew it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from valkyrie.adapters.errors import StoreError, StoreTimeout
from valkyrie.adapters.migrate.note import POLL_S

log = logging.getLogger(__name__)

LOOK_S = 5.0  # with what follows from it
READ_S = 1.0  # for the note, of each store: one that hangs must not keep what the other says
WAIT_S = 2.0  # that a call waits for a look
AGAIN_S = READ_S + POLL_S  # after a look that failed began, within which no call waits for another one
NEVER = float("-inf")


class Lease:
    """`look` reads the note, follows it and sets `until`; it raises when it cannot."""

    def __init__(self, name: str, look: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
        self._name = name
        self._look = look
        self._clock = clock
        self._looking: asyncio.Task[None] | None = None
        self._failed = NEVER  # when the look began that failed last
        self._bug = ""  # by which looks fail
        self.until = NEVER

    async def renewed(self) -> bool:
        """Whether it holds, after looks if need be; WAIT_S at most."""
        try:
            async with asyncio.timeout(WAIT_S):
                while self._clock() > self.until and self._clock() - self._failed >= AGAIN_S:
                    await self.look()
        except TimeoutError:
            self._failed = self._clock()
        return self._clock() <= self.until

    async def look(self) -> None:
        """Wait for the look that is under way, or for a new one. Raises nothing."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._try_look())
        await asyncio.shield(self._looking)

    async def close(self) -> None:
        await ended(self._looking)

    async def _try_look(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(LOOK_S):
                await self._look()
        except (StoreError, TimeoutError):
            self._failed = began
        except Exception as error:  # a bug: who follows no more would decide by an old note
            self._failed = began
            if repr(error) != self._bug:
                self._bug = repr(error)
                log.exception("the note of a migration of %s was not followed; it is tried again", self._name)
        else:
            self._bug = ""


async def answer_of(read: Awaitable[bytes | None], name: str) -> bytes | Exception | None:
    """A document, or why it could not be read within READ_S."""
    try:
        async with asyncio.timeout(READ_S):
            return await read
    except TimeoutError:
        return StoreTimeout(f"{name}: the note of a migration was not read within {READ_S:g} s")
    except Exception as error:  # noqa: BLE001 what one store does must not hide what the other says
        return error


async def ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
