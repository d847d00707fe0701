# SPDX-License-Identifier: Apache-2.0
"""Drop events, read from the kernel's ring buffer through shared memory."""

import asyncio
import mmap
import os
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, layout
from valkyrie.control.enums import Reason

BUSY, DISCARD, HEADER = 1 << 31, 1 << 30, 8
LENGTH = struct.Struct("=I")
REASONS = frozenset(int(reason) for reason in Reason)


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


def _address(raw: bytes) -> IPv4Address | IPv6Address:
    found = IPv6Address(raw)
    return found.ipv4_mapped or found


def decode(raw: bytes) -> Event | None:
    """One struct event; None for a reason that this version does not know, as a newer program reports."""
    one = np.frombuffer(raw, abi.EVENT, count=1)[0]
    slot = int(one["slot"])
    if int(one["reason"]) not in REASONS:
        return None
    return Event(
        int(one["time"]), _address(one["src"].tobytes()), _address(one["dst"].tobytes()), int(one["ifindex"]),
        int(one["sport"]), int(one["dport"]), int(one["length"]), None if slot == abi.NO_SLOT else slot,
        int(one["protocol"]), Reason(int(one["reason"])), bool(one["shadow"]),
    )  # fmt: skip


class EventReader:
    """The one reader of the pinned ring. A context manager, or close() it.

    Layout of the mapping: the consumer's position (a page we write), then the producer's position
    (a page) and the data twice over, so that a record never wraps.
    """

    def __init__(self, pin_dir: Path) -> None:
        """Raises NotFound if the ring is not pinned."""
        self._fd = bpf.obj_get(pin_dir / layout.EVENTS)
        self._size = bpf.map_info(self._fd).max_entries
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self._fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._ring = mmap.mmap(self._fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # numpy loads and stores the positions whole, as the kernel does; struct would go by bytes.
        self._read_to = np.frombuffer(self._consumer, np.uint64, 1)
        self._written_to = np.frombuffer(self._ring, np.uint64, 1)

    def __enter__(self) -> "EventReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        del self._read_to, self._written_to
        self._ring.close()
        self._consumer.close()
        os.close(self._fd)

    def fileno(self) -> int:
        """Readable when there are events: for a poll or an event loop."""
        return self._fd

    def read(self, most: int = 256) -> list[Event]:
        """The events there are, at most so many; they are consumed."""
        found: list[Event] = []
        at, end = int(self._read_to[0]), int(self._written_to[0])
        while at < end and len(found) < most:
            start = mmap.PAGESIZE + at % self._size
            (word,) = LENGTH.unpack_from(self._ring, start)
            if word & BUSY:
                break
            length = word & ~(BUSY | DISCARD)
            if not word & DISCARD and length >= abi.EVENT.itemsize:
                first = start + HEADER
                event = decode(self._ring[first : first + abi.EVENT.itemsize])
                if event is not None:
                    found.append(event)
            at += (length + HEADER + 7) & ~7
        self._read_to[0] = at
        return found

    async def events(self) -> AsyncIterator[Event]:
        """Events for ever, as they come."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            while True:
                found = self.read()
                for event in found:
                    yield event
                if found:
                    await asyncio.sleep(0)  # a ring that never runs dry must leave the loop to others
                else:
                    ready.clear()
                    await ready.wait()
        finally:
            loop.remove_reader(self._fd)
