# SPDX-License-Identifier: Apache-2.0
"""Drop events from the kernel, in words: to those who follow, to those who ask for the last ones, and into
the count of top talkers.

Batches are counted as arrays, whatever their number; words are found for what somebody reads alone.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from valkyrie.control.dataplane.events import Event, decode
from valkyrie.control.dataplane.keyname import packet_key
from valkyrie.control.limits import Limit
from valkyrie.control.service.core import Core
from valkyrie.control.service.events import Hub
from valkyrie.control.service.talkers import Talkers
from valkyrie.control.words import PROTOCOLS

KEPT = 1000  # the last events, for those who ask
LIVE = 1000  # events a second that are told to those who follow; what is more is told as lost

_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True)
class _Batch:
    """Records, and the limits by slot as they were then."""

    events: NDArray[Any]
    limits: Mapping[int, Limit]


class Drops:
    """Use from the event loop's thread."""

    def __init__(self, core: Core, hub: Hub, talkers: Talkers) -> None:
        self._core = core
        self._hub = hub
        self._talkers = talkers
        self._kept: deque[_Batch] = deque()
        self._live_second = 0
        self._live = 0

    async def pump(self, batches: AsyncIterator[NDArray[Any]]) -> None:
        """Take in batches of abi.EVENT for ever."""
        async for events in batches:
            self.take(events)

    def take(self, events: NDArray[Any]) -> None:
        world = self._core.world
        weight = max(1, self._core.settings.events.sample)
        self._talkers.add(events, world.name_of_slot, weight)
        batch = _Batch(events[-KEPT:], _limits(events, world.name_of_slot, world.limits))
        self._keep(batch)
        if self._hub.followed:
            self._tell(_Batch(events, batch.limits))

    def _keep(self, batch: _Batch) -> None:
        """Whole batches go when those after them are enough: at most 2 * KEPT events are held."""
        self._kept.append(batch)
        held = sum(len(each.events) for each in self._kept)
        while held - len(self._kept[0].events) >= KEPT:
            held -= len(self._kept.popleft().events)

    def _tell(self, batch: _Batch) -> None:
        second = self._core.clock.mono_ns() // 1_000_000_000
        if second != self._live_second:
            self._live_second, self._live = second, 0
        room = min(LIVE - self._live, len(batch.events))
        for event in self._told(batch, batch.events[:room]):
            self._hub.publish(event)
        self._live += room
        self._hub.lose(len(batch.events) - room)

    def last(self, count: int) -> list[dict[str, Any]]:
        """The last drops and notes, at most `count` of them, the oldest first."""
        told: list[dict[str, Any]] = []
        for batch in reversed(self._kept):
            room = count - len(told)
            if room <= 0:
                break
            told = [*self._told(batch, batch.events[-room:]), *told]
        return sorted([*told, *self._hub.notes], key=lambda event: event["time"])[-count:]

    def _told(self, batch: _Batch, events: Iterable[Any]) -> Iterable[dict[str, Any]]:
        clock = self._core.clock
        began = clock.wall() - clock.mono_ns() / 1e9
        for record in events:
            event = decode(record)
            limit = None if event.slot is None else batch.limits.get(event.slot)
            yield _in_words(event, limit, began + event.time / 1e9)


def _limits(events: NDArray[Any], names: Mapping[int, str], limits: Mapping[str, Limit]) -> dict[int, Limit]:
    """Those that the events name, by slot."""
    slots = set(events["slot"].tolist())
    return {slot: limits[names[slot]] for slot in slots if names.get(slot) in limits}


def _in_words(event: Event, limit: Limit | None, wall: float) -> dict[str, Any]:
    return {
        "time": wall,
        "kind": "drop",
        "src": str(event.src),
        "dst": str(event.dst),
        "sport": event.sport,
        "dport": event.dport,
        "protocol": _NAMES.get(event.protocol, str(event.protocol)),
        "length": event.length,
        "nic": nic_name(event.ifindex),
        "limit": None if limit is None else limit.name,
        "key": None if limit is None else packet_key(event, limit.key_spec),
        "reason": event.reason.name.lower(),
        "shadow": event.shadow,
    }


def nic_name(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"#{ifindex}"  # gone since
