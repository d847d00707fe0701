# SPDX-License-Identifier: Apache-2.0
"""Frames from the world, made by scapy, and which of them come out behind a policed NIC."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from scapy.layers.l2 import Ether
from scapy.packet import Packet

from support.netns import End

ETH_P_ALL = 3
SOL_PACKET, IGNORE_OUTGOING = 263, 23
LAST = 0x88B5  # an EtherType for experiments: no limit is about it
OURS = b"\x02\x57\0\0"  # begins the source addresses; two bytes that number the frame follow
SECONDS = 20


class FramesWay:
    """From the NIC of one end to that of the other. Close it."""

    def __init__(self, inside: End, outside: End) -> None:
        self._to = bytes.fromhex(inside.mac.replace(":", ""))
        self._out = outside.namespace.call(_opened, outside.nic)
        self._tap = inside.namespace.call(_opened, inside.nic)
        self._tap.settimeout(SECONDS)

    def passed(self, packets: Sequence[Packet]) -> list[int]:
        """The places of those that came through. One that every policy passes goes last: once it is
        there, all are.
        """
        for number, packet in enumerate(packets):
            self._send(bytes(Ether(src=self._source(number), dst=self._to) / packet))
        self._send(self._to + self._source(0xFFFF) + LAST.to_bytes(2, "big") + bytes(46))
        came: list[int] = []
        while True:
            source = self._tap.recv(2048)[6:12]
            if source.startswith(OURS):
                number = int.from_bytes(source[4:], "big")
                if number == 0xFFFF:
                    return came
                came.append(number)

    def _source(self, number: int) -> bytes:
        return OURS + number.to_bytes(2, "big")

    def _send(self, frame: bytes) -> None:
        self._out.send(frame)

    def close(self) -> None:
        self._out.close()
        self._tap.close()


def _opened(nic: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    made.bind((nic, ETH_P_ALL))
    return made
