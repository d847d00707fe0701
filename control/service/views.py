# SPDX-License-Identifier: Apache-2.0
"""What people look at: status, live rates, buckets, the explanation of a packet, who changed what."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from valkyrie.control.audit import Actor
from valkyrie.control.enums import Reason
from valkyrie.control.errors import InvalidInput, NotFound
from valkyrie.control.service.core import Core
from valkyrie.control.service.drops import Drops
from valkyrie.control.service.limits import known
from valkyrie.control.service.nics import Nics
from valkyrie.control.service.talkers import Talkers
from valkyrie.control.version import installed

SHORTEST_SPAN_NS = 250_000_000  # rates over less than this are noise: show the last ones again
RATES = ("matched", "passed", "dropped", "shadow_dropped")


@dataclass(frozen=True)
class Sample:
    """Counters at a moment, and the rates since the sample before."""

    at_ns: int
    counters: np.ndarray[Any, Any]
    rates: dict[str, np.ndarray[Any, Any]]


class Views:
    """`talkers` is fed by the data plane's drop events; `kept` tells how the state is kept in a store."""

    def __init__(
        self, core: Core, nics: Nics, talkers: Talkers, drops: Drops, kept: Callable[[], dict[str, Any]]
    ) -> None:
        self._kept = kept
        self._drops = drops
        self._core = core
        self._nics = nics
        self._talkers = talkers
        self._started = core.clock.wall()
        self._sample: Sample | None = None
        # A look at the table takes long and changes nothing: beside the thread of changes, one at a time.
        self._looking = asyncio.Lock()

    async def status(self) -> dict[str, Any]:
        core = self._core
        figures = core.engine.figures()
        live = await asyncio.to_thread(core.engine.occupancy)
        nics = await self._nics.list()
        return {
            "version": installed(),
            "pid": os.getpid(),
            "started": self._started,
            "enforcing": any(nic["attached"] for nic in nics),
            "serial": core.serial,
            "limits": len(core.world.desired.limits),
            "overrides": len(core.world.desired.overrides),
            "exempts": len(core.world.desired.exempts),
            "bans": len(core.world.desired.bans),
            "protect": list(core.world.protects(core.settings.protect)),
            "nics": nics,
            "program": dict(core.engine.identity()),
            "table": {"buckets": core.engine.capacity, "live": live, **figures.table},
            "sync": self._kept(),
            "reasons": {
                reason.name.lower(): {
                    "packets": int(figures.reasons["packets"][reason]),
                    "bytes": int(figures.reasons["bytes"][reason]),
                }
                for reason in Reason
            },
        }

    async def top(self, count: int, limit: str | None = None) -> dict[str, Any]:
        """Rates since the last call that is a quarter of a second ago or more, and who is dropped most, by
        all limits or by one. Raises NotFound for a limit that is neither one nor a reason.
        """
        if limit is not None and limit.upper() not in Reason.__members__:
            known(self._core.world, limit)
        sample = self._sampled()
        slots = self._core.world.allotment.slots
        limits = [
            {
                "name": limit.name,
                "action": limit.action,
                **{f"{name}_per_s": float(sample.rates[name][slots[limit.name].slot]) for name in RATES},
            }
            for limit in self._core.world.desired.limits
        ]
        for row in limits:
            if row["action"] == "shadow":
                row["dropped_per_s"] = row["shadow_dropped_per_s"]
        return {"limits": limits, "talkers": self._talkers.top(count, limit), "events": self._events()}

    def _events(self) -> dict[str, int]:
        """What became of the events from which talkers are counted."""
        table = self._core.engine.figures().table
        return {name: table.get(f"events_{name}", 0) for name in ("sent", "lost", "limited")}

    def last_events(self, count: int) -> dict[str, Any]:
        """The last drops and notes, the oldest first, and how many drops were not told."""
        return {"events": self._drops.last(count), **self._events()}

    def _sampled(self) -> Sample:
        now = self._core.clock.mono_ns()
        last = self._sample
        if last is not None and now - last.at_ns < SHORTEST_SPAN_NS:
            return last
        counters = self._core.engine.figures().limits.copy()
        rates = {name: np.zeros(len(counters)) for name in RATES}
        if last is not None:
            for name in RATES:
                # A slot that was zeroed for a new limit in between counts from zero.
                grown = counters[name].astype(np.int64) - last.counters[name].astype(np.int64)
                since = np.where(grown < 0, counters[name].astype(np.int64), grown)
                rates[name] = since * 1e9 / (now - last.at_ns)
        self._sample = Sample(now, counters, rates)
        return self._sample

    async def explain(self, packet: str) -> dict[str, Any]:
        """What the loaded program itself would say. Raises InvalidInput naming the wrong word."""
        core = self._core
        return await core.in_turn(lambda: core.engine.explain(packet, core.world, core.order))

    async def buckets(self, limit: str | None, key: str | None, *, live: bool, count: int) -> dict[str, Any]:
        """Buckets, the emptiest first. Raises NotFound for an unknown limit, InvalidInput for a wrong key."""
        core = self._core

        def work() -> list[dict[str, Any]]:
            if limit is not None:
                known(core.world, limit)
            return core.engine.buckets(core.world, limit=limit, key=key, live=live, count=count)

        async with self._looking:
            return {"buckets": await asyncio.to_thread(work)}

    async def bucket(self, limit: str, key: str | None) -> dict[str, Any]:
        """One bucket. Raises NotFound when the key has none, which means that it has all its tokens."""
        entry = known(self._core.world, limit)
        if key is None and entry.key != "global":
            raise InvalidInput(
                f"limit {limit} has a bucket for each {entry.key}: which one?",
                f"give a key as `valkyrie-ctl buckets list {limit}` shows it",
                "key",
            )
        found = (await self.buckets(limit, key, live=False, count=1))["buckets"]
        if not found:
            raise NotFound(
                f"{key} has no bucket under {limit}: it has all its tokens"
                if key
                else f"limit {limit} has no bucket: it has all its tokens",
                f"valkyrie-ctl buckets list {limit}",
            )
        one: dict[str, Any] = found[0]
        return one

    async def reset(self, actor: Actor, limit: str, key: str | None) -> dict[str, Any]:
        """Make the bucket of a key, or all of the limit, full again. Raises NotFound, InvalidInput."""
        core = self._core

        def work() -> int:
            known(core.world, limit)
            count = core.engine.reset(core.world, limit, key)
            core.note(actor, "buckets.reset", limit, {"key": key, "count": count})
            return count

        return {"reset": await core.in_turn(work)}

    async def audit(self, count: int) -> dict[str, Any]:
        entries = await self._core.in_turn(lambda: self._core.state.audit(count))
        rows = [
            {
                "id": one.id,
                "at": one.at,
                **asdict(one.actor),
                "action": one.action,
                "target": one.target,
                "detail": json.loads(one.detail),
            }
            for one in entries
        ]
        return {"audit": rows}
