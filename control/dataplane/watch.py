# SPDX-License-Identifier: Apache-2.0
"""Link events of the current network namespace, so that a NIC that comes back is attached again.

A plain netlink socket that the event loop waits for; nothing polls.
"""

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal

from valkyrie.control.errors import Unavailable

GROUP_LINK = 1
NEWLINK, DELLINK = 16, 17
IFNAME, XDP, XDP_ATTACHED, XDP_PROG_ID = 3, 43, 2, 4
ATTACHED_DRV, ATTACHED_SKB = 1, 2
XDP_PROG_IDS = {ATTACHED_DRV: 5, ATTACHED_SKB: 6}
TYPE_MASK = 0x3FFF  # without the "nested" and "network byte order" marks
IFF_UP, IFF_RUNNING = 1, 64
RECEIVE_BYTES = 65536
QUEUE_BYTES = 1 << 20

MESSAGE = struct.Struct("=IHHII")
LINK = struct.Struct("=BxHiII")
ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True)
class LinkEvent:
    """`changed`: a NIC is new or differs; `removed`: it has gone; `resync`: events were lost, so
    every NIC must be looked at. `prog_id` is the XDP program attached, 0 if none; `xdp` how, XDP_ATTACHED_*.
    Of a NIC that carries another in the hardware too, they tell of the one beside it.
    """

    kind: Literal["changed", "removed", "resync"]
    ifindex: int = 0
    name: str = ""
    up: bool = False
    running: bool = False
    prog_id: int = 0
    xdp: int = 0


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & TYPE_MASK, data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _event(kind: int, body: bytes) -> LinkEvent:
    _, _, ifindex, flags, _ = LINK.unpack_from(body)
    found = dict(_attributes(body[LINK.size :]))
    prog_id, mode = _xdp(dict(_attributes(found.get(XDP, b""))))
    return LinkEvent(
        "removed" if kind == DELLINK else "changed",
        ifindex,
        found.get(IFNAME, b"").split(b"\0", 1)[0].decode("utf-8", "replace"),
        bool(flags & IFF_UP),
        bool(flags & IFF_RUNNING),
        prog_id,
        mode,
    )


def _xdp(attributes: dict[int, bytes]) -> tuple[int, int]:
    """The program's id and XDP_ATTACHED_*."""
    for mode, kind in XDP_PROG_IDS.items():
        if prog_id := _number(attributes, kind):
            return prog_id, mode
    return _number(attributes, XDP_PROG_ID), _number(attributes, XDP_ATTACHED)


def _number(attributes: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b"")[:4], sys.byteorder)


def parse(data: bytes) -> list[LinkEvent]:
    """The link events of one datagram; what is cut short or of another kind is left out."""
    events: list[LinkEvent] = []
    at = 0
    while at + MESSAGE.size <= len(data):
        length, kind, _, _, _ = MESSAGE.unpack_from(data, at)
        if length < MESSAGE.size or at + length > len(data):
            break
        body = data[at + MESSAGE.size : at + length]
        if kind in (NEWLINK, DELLINK) and len(body) >= LINK.size and body[0] == socket.AF_UNSPEC:
            events.append(_event(kind, body))
        at += (length + 3) & ~3
    return events


class LinkWatch:
    """An open subscription: `async for event in watch.events()`. A context manager, or close() it."""

    def __init__(self) -> None:
        """Subscribe; events from now on are kept. Raises Unavailable."""
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
            self._socket.bind((0, GROUP_LINK))
        except OSError as error:
            raise Unavailable(
                f"watching the NICs: {error.strerror}",
                "the kernel refuses netlink: check the service's sandbox",
            ) from error

    def __enter__(self) -> "LinkWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[LinkEvent]:
        """What has come in; empty if nothing has."""
        try:
            return parse(self._socket.recv(RECEIVE_BYTES))
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return [LinkEvent("resync")]
            raise Unavailable(
                f"watching the NICs: {os.strerror(error.errno or 0)}", "restart valkyried"
            ) from error

    async def events(self) -> AsyncIterator[LinkEvent]:
        """Link events for ever, in their order."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._socket.fileno(), ready.set)
        try:
            while True:
                await ready.wait()
                ready.clear()
                while found := self.read():
                    for event in found:
                        yield event
        finally:
            loop.remove_reader(self._socket.fileno())
