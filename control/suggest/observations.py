# SPDX-License-Identifier: Apache-2.0
"""Observations under way: limits that take nothing and drop nothing, but tell when packets of some keys came.

An observation ends with whoever reads it. It is part of no state, so a daemon that starts again has none, and
the kernel ends it at its time by itself.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.audit import DAEMON, Actor
from valkyrie.control.errors import Conflict, InvalidInput
from valkyrie.control.limits import Limit
from valkyrie.control.service.core import Core
from valkyrie.control.service.world import World
from valkyrie.control.suggest.pace import Width, narrower

LOOK_S = 0.25  # between looks at how much comes
WAITING = 64  # batches that wait for one reader; one has at most 4,096 records of 24 bytes
GRACE_NS = 2_000_000_000
TOLD = np.dtype([("time", "<u8"), ("fingerprint", "<u8"), ("tokens", "<u4"), ("thin", "<u4")])


@dataclass
class Observation:
    """One under way. `lost`: records that found no room among those that wait."""

    place: int
    identity: int
    until_ns: int
    limit: Limit
    width: Width = field(default_factory=Width)
    records: asyncio.Queue[NDArray[Any]] = field(default_factory=lambda: asyncio.Queue(WAITING))
    lost: int = 0
    ended: bool = False


class Observations:
    """Use from the event loop's thread."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._places: dict[int, Observation] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def pump(self, batches: AsyncIterator[NDArray[Any]]) -> None:
        """Hand abi.OBSERVED records to those who wait for them, for ever."""
        async for batch in batches:
            for one in list(self._places.values()):
                mine = batch[batch["id"] == one.identity]
                if not len(mine):
                    continue
                if one.records.full():
                    one.lost += len(mine)
                else:
                    one.records.put_nowait(mine)

    async def begin(self, actor: Actor, limit: Limit, target: str, seconds: float) -> Observation:
        """Watch what `limit` matches. Raises InvalidInput, Conflict when too many are under way."""
        if limit.key_spec.id:
            raise InvalidInput("no packet has the key id", "choose a key that packets have, as src", "key")
        now = self._core.clock.mono_ns()
        for late in [one for one in self._places.values() if one.until_ns + GRACE_NS < now]:
            self.end(late)
        await asyncio.gather(*self._ending, return_exceptions=True)
        taken = self._places.keys() | self._core.world.observers.keys()
        free = set(range(abi.OBSERVATIONS)) - taken
        if not free:
            raise Conflict(f"{abi.OBSERVATIONS} observations are under way", "wait for one to end")
        if len(self._core.world.desired.limits) + len(taken) >= abi.MAX_LIMITS:
            raise Conflict("there are as many limits as fit", "an observation takes the place of one")
        one = Observation(min(free), now, now + int(seconds * 1e9), limit)
        self._places[one.place] = one
        detail = {"match": limit.match, "key": limit.key, "seconds": seconds}
        try:
            await self._core.change(
                actor, "observe", target, detail, lambda world: _with(world, one.place, limit)
            )
            row = np.zeros((), abi.OBSERVATION)
            row["id"], row["until"] = one.identity, one.until_ns
            self._core.engine.watches.observe(one.place, row)
        except BaseException:
            self.end(one)
            raise
        return one

    def end(self, one: Observation) -> None:
        """Let go of it, at once; the ruleset follows. Again: nothing."""
        one.ended = True
        if self._places.get(one.place) is one:
            self._core.engine.watches.end_observation(one.place)
            del self._places[one.place]
            task = asyncio.get_running_loop().create_task(self._remove(one.place))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _remove(self, place: int) -> None:
        await self._core.change(DAEMON, "observe.end", "", {}, lambda world: _with(world, place, None))

    def figures(self, one: Observation) -> dict[str, int]:
        found = self._core.engine.watches.observation_figures(one.place)
        return {**found, "lost": found["lost"] + one.lost}

    async def told(self, one: Observation) -> AsyncIterator[dict[str, Any]]:
        """Records and figures until its time is over; figures come last."""
        limit, loop = one.limit, asyncio.get_running_loop()
        names = ("match", "key", "measure", "rate", "burst")
        yield {"observing": {name: getattr(limit, name) for name in names}}
        looked, before, keys = loop.time(), self.figures(one), set[int]()
        while not one.ended and self._core.clock.mono_ns() < one.until_ns:
            try:
                batch = await asyncio.wait_for(one.records.get(), LOOK_S)
            except TimeoutError:
                batch = None
            if batch is not None:
                keys.update(np.unique(batch["fingerprint"]).tolist())
                yield {"records": _encoded(batch)}
            if loop.time() - looked >= LOOK_S:
                now = self.figures(one)
                narrowed = self._narrowed(one, before, now, loop.time() - looked, len(keys))
                if narrowed is not None:
                    yield narrowed
                looked, before, keys = loop.time(), self.figures(one), set()
                yield {"figures": now}
        yield {"end": self.figures(one)}

    def _narrowed(
        self, one: Observation, before: dict[str, int], now: dict[str, int], seconds: float, keys: int
    ) -> dict[str, Any] | None:
        """Have less reported if more came than user space shall read; what the reader must know of it."""
        lost = now["lost"] - before["lost"]
        rate = (now["sent"] - before["sent"] + lost) / seconds
        width = narrower(one.width, rate, keys)
        if lost and width == one.width:
            width = replace(width, thin=width.thin << 1 | 1)
        if width == one.width:
            return None
        anew = lost > 0 or width.thin != one.width.thin
        one.width = width
        self._core.engine.watches.narrow(one.place, width.mask, width.thin)
        return {"narrowed": {"mask": width.mask, "thin": width.thin, "anew": anew}}

    def end_all(self) -> None:
        """End the streams, so that the server can stop."""
        for one in list(self._places.values()):
            self.end(one)

    async def close(self) -> None:
        self.end_all()
        await asyncio.gather(*self._ending, return_exceptions=True)


def _with(world: World, place: int, limit: Limit | None) -> World:
    others = {at: other for at, other in world.observers.items() if at != place}
    if limit is None and len(others) == len(world.observers):
        return world
    return world.but(observers=others if limit is None else {**others, place: limit})


def _encoded(batch: NDArray[Any]) -> str:
    told = np.zeros(len(batch), TOLD)
    for name in ("time", "fingerprint", "tokens", "thin"):
        told[name] = batch[name]
    return base64.b64encode(told.tobytes()).decode()
