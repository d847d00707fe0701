# SPDX-License-Identifier: Apache-2.0
"""Captures under way: who asked for which packets, and the frames on their way to them.

Packets are private data: the API lets only those capture who may change things, and the audit log says who
captured what. A capture ends with whoever reads it; the kernel ends it by itself if the daemon is killed.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.audit import Actor
from valkyrie.control.capture.filter import Filter, row
from valkyrie.control.enums import Reason
from valkyrie.control.errors import Conflict
from valkyrie.control.service.core import Core
from valkyrie.control.service.drops import nic_name
from valkyrie.control.service.limits import known

WAITING = 8192  # frames that wait for one reader: 2.5 MB
TELL_S = 0.5  # between the figures that a reader is told, by which one that hung up is noticed
GRACE_NS = 2_000_000_000  # after its time a capture without a reader makes room


@dataclass
class _Capture:
    """One under way. `lost`: frames that found no room among those that wait."""

    place: int
    identity: int
    until_ns: int
    names: dict[int, str]
    began_ns: int
    frames: asyncio.Queue[Any] = field(default_factory=lambda: asyncio.Queue(WAITING))
    lost: int = 0


class Captures:
    """Use from the event loop's thread."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._places: dict[int, _Capture] = {}
        self._closed = False

    async def pump(self, batches: AsyncIterator[NDArray[Any]]) -> None:
        """Hand abi.CAPTURED records to those who wait for them, for ever."""
        async for batch in batches:
            for record in batch:
                self._hand(record)

    def _hand(self, record: Any) -> None:
        """One of a capture that has ended, or of a reason that only a newer program knows, goes."""
        for capture in self._places.values():
            if capture.identity == int(record["id"]) and record["reason"] < abi.REASONS:
                if capture.frames.full():
                    capture.lost += 1
                else:
                    capture.frames.put_nowait(record)

    async def begin(self, actor: Actor, wanted: Filter, seconds: float) -> _Capture:
        """Arm it. Raises InvalidInput, NotFound for an unknown limit, Conflict: too many are under way."""
        core = self._core
        slot = None
        if wanted.limit is not None:
            known(core.world, wanted.limit)
            slot = core.world.allotment.slots[wanted.limit].slot
        now = core.clock.mono_ns()
        until = now + int(seconds * 1e9)
        armed = row(wanted, slot, now, until)
        capture = self._placed(now, until)
        try:
            detail = {name: value for name, value in asdict(wanted).items() if value not in (None, False)}
            await core.in_turn(
                lambda: core.note(actor, "capture", wanted.limit or "", {**detail, "seconds": seconds})
            )
            core.engine.watches.capture(capture.place, armed)
        except BaseException:
            self.end(capture)
            raise
        return capture

    def _placed(self, identity: int, until_ns: int) -> _Capture:
        for late in [one for one in self._places.values() if one.until_ns + GRACE_NS < identity]:
            self.end(late)
        free = set(range(abi.CAPTURES)) - self._places.keys()
        if not free:
            raise Conflict(f"{abi.CAPTURES} captures are under way", "wait for one to end")
        while any(identity == other.identity for other in self._places.values()):
            identity += 1
        began = int(self._core.clock.wall() * 1e9) - self._core.clock.mono_ns()
        names = dict(self._core.world.name_of_slot)
        capture = _Capture(min(free), identity, until_ns, names, began)
        self._places[capture.place] = capture
        return capture

    def end(self, capture: _Capture) -> None:
        """Let go of it; again: nothing."""
        if self._places.get(capture.place) is capture:
            self._core.engine.watches.end_capture(capture.place)
            del self._places[capture.place]

    def figures(self, capture: _Capture) -> dict[str, int]:
        """What became of the packets so far. `lost`: in the kernel's ring, or waiting to be read."""
        found = self._core.engine.watches.capture_figures(capture.place)
        return {**found, "lost": found["lost"] + capture.lost}

    async def frames(self, capture: _Capture, count: int) -> AsyncIterator[dict[str, Any]]:
        """Frames and now and then figures, until `count` frames or its time are over; figures come last."""
        left = count
        while left and not self._closed:
            try:
                record = await asyncio.wait_for(capture.frames.get(), TELL_S)
            except TimeoutError:
                yield {"figures": self.figures(capture)}
                if self._core.clock.mono_ns() >= capture.until_ns:
                    break
                continue
            left -= 1
            yield {"frame": self._told(capture, record)}
        yield {"end": self.figures(capture)}

    def _told(self, capture: _Capture, record: Any) -> dict[str, Any]:
        verdict, slot = int(record["verdict"]), int(record["slot"])
        words = "drop" if verdict == abi.CAPTURE_DROPPED else "pass"
        if verdict & abi.CAPTURE_SHADOWED:
            words = "would drop"
        return {
            "time_ns": capture.began_ns + int(record["time"]),
            "nic": nic_name(int(record["ifindex"])),
            "length": int(record["length"]),
            "data": base64.b64encode(record["data"].tobytes()[: int(record["bytes"])]).decode(),
            "verdict": words,
            "reason": Reason(int(record["reason"])).name.lower(),
            "limit": None if slot == abi.NO_SLOT else capture.names.get(slot),
        }

    def close(self) -> None:
        """End all, so that the server can stop."""
        self._closed = True
        for capture in list(self._places.values()):
            self.end(capture)
