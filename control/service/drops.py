# SPDX-License-Identifier: Apache-2.0
"""Drop events from the kernel, in words: to those who follow, and into the count of top talkers."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

from valkyrie.control.dataplane.events import Event
from valkyrie.control.service.core import Core
from valkyrie.control.service.events import Hub
from valkyrie.control.service.talkers import Talkers
from valkyrie.control.words import PROTOCOLS

_NAMES = {number: name for name, number in PROTOCOLS.items()}


class Drops:
    """Use from the event loop's thread."""

    def __init__(self, core: Core, hub: Hub, talkers: Talkers) -> None:
        self._core = core
        self._hub = hub
        self._talkers = talkers

    async def pump(self, events: AsyncIterator[Event]) -> None:
        """Pass events on for ever."""
        async for event in events:
            limit = self._limit_of(event.slot)
            weight = max(1, self._core.settings.events.sample)
            self._talkers.add(str(event.src), limit or event.reason.name.lower(), weight)
            if self._hub.followed:
                self._hub.publish(self._told(event, limit))

    def _limit_of(self, slot: int | None) -> str | None:
        return None if slot is None else self._core.world.name_of_slot.get(slot)

    def _told(self, event: Event, limit: str | None) -> dict[str, Any]:
        clock = self._core.clock
        return {
            "time": clock.wall() - (clock.mono_ns() - event.time) / 1e9,
            "kind": "drop",
            "src": str(event.src),
            "dst": str(event.dst),
            "sport": event.sport,
            "dport": event.dport,
            "protocol": _NAMES.get(event.protocol, str(event.protocol)),
            "length": event.length,
            "nic": _nic(event.ifindex),
            "limit": limit,
            "reason": event.reason.name.lower(),
            "shadow": event.shadow,
        }


def _nic(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"#{ifindex}"  # gone since
