# SPDX-License-Identifier: Apache-2.0
"""Datagrams from the world through a policed NIC, and how many of them arrive."""

from __future__ import annotations

from support.appliance import PORT, Appliance

FREE_PORT = 9
SLOW = {"match": f"proto udp dport {PORT}", "key": "src", "rate": "1/h", "burst": "3"}


class Way:
    """Datagrams from the world to the policed side: how many arrive."""

    def __init__(self, appliance: Appliance) -> None:
        self.sender = appliance.sender()
        self.limited = appliance.receiver(PORT)
        self.free = appliance.receiver(FREE_PORT)

    def passed(self, count: int) -> int:
        """How many of `count` come through. The last goes where no limit is: once it is there, all are."""
        for _ in range(count):
            self.sender.sendto(b"x", ("10.9.0.1", PORT))
        self.sender.sendto(b"end", ("10.9.0.1", FREE_PORT))
        assert self.free.recv(16) == b"end"
        self.limited.setblocking(False)
        arrived = 0
        try:
            while self.limited.recv(16):
                arrived += 1
        except BlockingIOError:
            return arrived
        raise AssertionError("an empty datagram came")
