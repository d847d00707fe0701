# SPDX-License-Identifier: Apache-2.0
"""Events to all who follow them. Nobody who reads slowly holds up others or fills the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakSet

from valkyrie.control.errors import Conflict
from valkyrie.control.notes import Kind
from valkyrie.control.service.clock import Clock

QUEUE = 1024  # events that wait for one follower
TELL_S = 1.0  # after which a follower knows of a loss, also if nothing else happens
FOLLOWERS = 64
NOTES = 200  # the last notes, for those who ask
NEWS: dict[str, Any] = {}  # no event: there is a loss to be told


class Follower:
    """One reader's bounded queue. Iterating ends when the hub closes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(QUEUE)
        self._lost = 0
        self._telling: asyncio.TimerHandle | None = None

    def give(self, event: dict[str, Any]) -> None:
        if self._queue.full():
            self.lose(1)
        else:
            self._queue.put_nowait(event)

    def lose(self, count: int) -> None:
        self._lost += count
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._news)

    def _news(self) -> None:
        self._telling = None
        if self._lost and self._queue.empty():
            self._queue.put_nowait(NEWS)

    def end(self) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while (event := await self._queue.get()) is not None:
            if event:
                yield event
            if self._lost and self._queue.empty():
                lost, self._lost = self._lost, 0
                what = f"{lost} events were not told: over 1,000 drops a second, or more than was read"
                yield {"time": self._clock.wall(), "kind": "lost", "what": what, "lost": lost}


class Hub:
    """Use from the event loop's thread alone; `tell` may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Weak: a reader who hung up before its stream began leaves nothing to be given back.
        self._followers: WeakSet[Follower] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.notes: deque[dict[str, Any]] = deque(maxlen=NOTES)
        self._listeners: list[Callable[[dict[str, Any]], None]] = []

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Which loop the followers live in; before that nobody can follow."""
        self._loop = loop

    def tell(self, kind: Kind, what: str) -> None:
        """A note in words, as of a link that came back."""
        if self._loop is not None and not self._closed:
            event = {"time": self._clock.wall(), "kind": kind, "what": what}
            self._loop.call_soon_threadsafe(self._note, event)

    def _note(self, event: dict[str, Any]) -> None:
        self.notes.append(event)
        for hear in self._listeners:
            hear(event)
        self.publish(event)

    def listen(self, hear: Callable[[dict[str, Any]], None]) -> None:
        """Have `hear` called with every note, not with drops; in the loop's thread, and it must not block."""
        self._listeners.append(hear)

    def lose(self, count: int) -> None:
        """So many events were too many to be told to anybody who follows."""
        if count:
            for follower in self._followers:
                follower.lose(count)

    def publish(self, event: dict[str, Any]) -> None:
        for follower in self._followers:
            follower.give(event)

    @property
    def followed(self) -> bool:
        return bool(self._followers)

    def join(self) -> Follower:
        """A new follower, to be given back by `leave`. Raises Conflict when there are too many."""
        if len(self._followers) >= FOLLOWERS:
            raise Conflict(f"{FOLLOWERS} clients follow the events already", "end one of them")
        follower = Follower(self._clock)
        if self._closed:
            follower.end()
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        self._followers.discard(follower)

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        self._closed = True
        for follower in self._followers:
            follower.end()
