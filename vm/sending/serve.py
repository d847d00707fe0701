# SPDX-License-Identifier: Apache-2.0
"""The other side: answers marked UDP, and counts what arrived, so that both ends can be compared."""

import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any

from profiles.tag import ASK, REPLY, Tag, pack, unpack
from sending.errors import TrafficError
from sending.nic import ROOM, SO_RCVBUFFORCE
from sending.private import is_private

LONGEST = 65536
MOST_KINDS, MOST_RUNS, MOST_NUMBERS = 64, 32, 1 << 20
LOOK_S = 0.2


class Arrivals:
    """What arrived, by kind; numbers that came twice are told apart. Bounded whatever is sent."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, int]] = {}
        self.other = 0
        self._seen: dict[int, bytearray] = {}

    def count(self, tag: Tag | None) -> None:
        """Book one datagram."""
        if tag is None or (tag.kind not in self.kinds and len(self.kinds) >= MOST_KINDS):
            self.other += 1
            return
        kind = self.kinds.setdefault(tag.kind, {"arrived": 0, "duplicated": 0})
        kind["arrived"] += 1
        kind["duplicated"] += self._twice(tag)

    def _twice(self, tag: Tag) -> bool:
        if tag.seq >= MOST_NUMBERS or (tag.run not in self._seen and len(self._seen) >= MOST_RUNS):
            return False
        seen = self._seen.setdefault(tag.run, bytearray(MOST_NUMBERS // 8))
        place, bit = tag.seq // 8, 1 << tag.seq % 8
        before = bool(seen[place] & bit)
        seen[place] |= bit
        return before


def serve(
    address: str, port: int, seconds: float, stopped: Callable[[], bool], ready: Callable[[str], None]
) -> dict[str, Any]:
    """Answer until the time is over or it is stopped; what arrived, for JSON."""
    arrivals, answered, began = Arrivals(), 0, time.monotonic()
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(address, port))
        ready(f"listening on {address} port {port}")
        while not stopped() and (left := began + seconds - time.monotonic()) > 0:
            if select.select([listener], [], [], min(left, LOOK_S))[0]:
                answered += _answer_all(listener, arrivals)
    return {
        "kinds": dict(sorted(arrivals.kinds.items())),
        "arrived": sum(kind["arrived"] for kind in arrivals.kinds.values()),
        "answered": answered,
        "other": arrivals.other,
        "seconds": round(time.monotonic() - began, 3),
    }


def _listener(address: str, port: int) -> socket.socket:
    try:
        host = ip_address(address)
    except ValueError:
        raise TrafficError(f"{address!r} is no address to listen on; 0.0.0.0 and :: are all") from None
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        except PermissionError:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        listener.setblocking(False)
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise TrafficError(f"cannot listen on {address} port {port}: {error.strerror}") from error
    return listener


def _answer_all(listener: socket.socket, arrivals: Arrivals) -> int:
    """Answer what is there, a thousand at most at a time; how many were answered."""
    answered = 0
    for _ in range(1000):
        try:
            data, sender = listener.recvfrom(LONGEST)
        except BlockingIOError:
            break
        except OSError:
            continue  # an ICMP error about an earlier answer
        tag = unpack(data)
        arrivals.count(tag)
        # Sources can be forged: nobody outside a private network is sent anything.
        if tag is None or tag.what != ASK or not is_private(ip_address(sender[0].partition("%")[0])):
            continue
        reply = pack(Tag(REPLY, tag.run, tag.seq, tag.kind)) + data[len(pack(tag)) :]
        try:
            listener.sendto(reply, sender)
            answered += 1
        except OSError:
            continue  # no way back to it: the sender sees it as lost
    return answered
