# SPDX-License-Identifier: Apache-2.0
"""Drop events from the kernel's ring buffer: in batches as arrays, and one by one as values."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from valkyrie.control import abi
from valkyrie.control.dataplane import layout
from valkyrie.control.dataplane.ring import BATCH, Records, Ring
from valkyrie.control.enums import Reason


@dataclass(frozen=True)
class Event:
    """A dropped packet (`shadow`: one that a shadow limit would have dropped). `time` in ns since boot;
    `slot` names the limit's counters, None if no limit dropped it.
    """

    time: int
    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    ifindex: int
    sport: int
    dport: int
    length: int
    slot: int | None
    protocol: int
    reason: Reason
    shadow: bool


def address(raw: bytes) -> IPv4Address | IPv6Address:
    """Of 16 bytes as struct event has them."""
    found = IPv6Address(raw)
    return found.ipv4_mapped or found


def known(records: Records) -> Records:
    """Those of a reason that this version knows: a newer program may report others."""
    which: Records = records[records["reason"] < abi.REASONS]
    return which


def decode(one: Any) -> Event:
    """One abi.EVENT of a known reason."""
    slot = int(one["slot"])
    return Event(
        int(one["time"]), address(one["src"].tobytes()), address(one["dst"].tobytes()), int(one["ifindex"]),
        int(one["sport"]), int(one["dport"]), int(one["length"]), None if slot == abi.NO_SLOT else slot,
        int(one["protocol"]), Reason(int(one["reason"])), bool(one["shadow"]),
    )  # fmt: skip


def decoded(records: Iterable[Any]) -> list[Event]:
    return [decode(one) for one in records]


class EventReader(Ring):
    """The one reader of the pinned ring of events."""

    def __init__(self, pin_dir: Path) -> None:
        """Raises NotFound if the ring is not pinned."""
        super().__init__(pin_dir / layout.EVENTS, abi.EVENT)

    def batch(self, most: int = BATCH) -> Records:
        return known(super().batch(most))

    def read(self, most: int = 256) -> list[Event]:
        """The events there are, at most so many; they are consumed."""
        return decoded(self.batch(most))

    async def events(self) -> AsyncIterator[Event]:
        """Events for ever, as they come."""
        async for found in self.batches():
            for event in decoded(found):
                yield event
