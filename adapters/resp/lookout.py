# SPDX-License-Identifier: Apache-2.0
"""Looks for who serves what after a failure, and keeps calls that found no primary until there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from valkyrie.adapters.errors import StoreError

LOOK_S = 0.2  # between two looks, at least
MAX_WAITING = 10_000  # calls


@dataclass(slots=True)
class _Line:
    """Calls that failed at one node since `began`, the last of them at `failed`; in order."""

    began: float
    failed: float
    waiting: dict[asyncio.Future[bool], None] = field(default_factory=dict)


class Lookout:
    """`look` asks the servers and raises StoreError when none of them answers.

    Calls wait during the first `wait_s` of an outage, and while somebody answers who could name a new
    primary. After each look one call of each line tries; when it is served, all the others go too. So
    callers cost a dead cluster nothing, however many they are.
    """

    def __init__(self, look: Callable[[], Awaitable[None]], wait_s: float) -> None:
        self._look = look
        self._wait_s = wait_s
        self._lines: dict[str, _Line] = {}
        self._waiting = 0
        self._nobody = False  # answered the last look
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        return self._waiting

    def again(self) -> None:
        """Look in the background, now or LOOK_S after the last time."""
        if not self._closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._run(), name="lookout")

    async def wait(self, node: str) -> bool:
        """A call was not run by `node`: whether to try again, as soon as that is worth while. False: nobody
        answers, the outage has lasted too long, or too many wait already.
        """
        now = asyncio.get_running_loop().time()
        line = self._line(node, now)
        line.failed = now
        self.again()
        until = line.began + self._wait_s
        if self._nobody or self._closed or now >= until or self._waiting >= MAX_WAITING:
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        line.waiting[turn] = None
        self._waiting += 1
        try:
            async with asyncio.timeout_at(until):
                return await turn
        except TimeoutError:
            return False
        finally:
            del line.waiting[turn]
            self._waiting -= 1

    def served(self, node: str) -> None:
        """A call that had waited was answered: the outage of `node` is over."""
        line = self._lines.pop(node, None)
        if line is not None:
            _go(line, again=True)

    async def close(self) -> None:
        """Those who wait fail as if nobody answered."""
        self._closed = True
        self._release()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _line(self, node: str, now: float) -> _Line:
        """The node's, begun anew if its last failure is long ago."""
        line = self._lines.get(node)
        if line is not None and (line.waiting or now - line.failed <= self._wait_s):
            return line
        over = [
            name for name, one in self._lines.items() if not one.waiting and now - one.failed > self._wait_s
        ]
        for name in over:
            del self._lines[name]
        line = self._lines[node] = _Line(now, now)
        return line

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except StoreError:
                self._nobody = True
                self._release()
            else:
                self._nobody = False
                self._send_scouts()
            await asyncio.sleep(LOOK_S)
            if not self._waiting:
                return

    def _send_scouts(self) -> None:
        for line in self._lines.values():
            first = next((turn for turn in line.waiting if not turn.done()), None)
            if first is not None:
                first.set_result(True)

    def _release(self) -> None:
        for line in self._lines.values():
            _go(line, again=False)


def _go(line: _Line, *, again: bool) -> None:
    for turn in line.waiting:
        if not turn.done():
            turn.set_result(again)
