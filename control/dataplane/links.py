# SPDX-License-Identifier: Apache-2.0
"""All NICs with their XDP programs by one netlink question, without the netlink library.

The library takes a tenth of a second to load, which a daemon that only adopts what is attached can
do without.
"""

import os
import socket
import struct

from valkyrie.control.dataplane.watch import MESSAGE, LinkEvent, parse
from valkyrie.control.errors import Unavailable

RTM_GETLINK, REQUEST_DUMP = 18, 0x301
ERROR, DONE = 2, 3
REQUEST = struct.Struct("=IHHIIBxHiII")
RECEIVE_BYTES = 1 << 18
SECONDS = 5


def links() -> list[LinkEvent]:
    """Every NIC of the current network namespace. Raises Unavailable."""
    found: list[LinkEvent] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
            netlink.settimeout(SECONDS)
            netlink.bind((0, 0))
            netlink.send(REQUEST.pack(REQUEST.size, RTM_GETLINK, REQUEST_DUMP, 1, 0, 0, 0, 0, 0, 0))
            while True:
                data = netlink.recv(RECEIVE_BYTES)
                found += parse(data)
                if _ends(data):
                    return found
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        hint = "the kernel refuses netlink: check the service's sandbox"
        raise Unavailable(f"listing the NICs: {why}", hint) from error


def _ends(data: bytes) -> bool:
    """Whether the answer ends with this datagram. Raises OSError if the kernel refused."""
    at = 0
    while at + MESSAGE.size <= len(data):
        length, kind, _, _, _ = MESSAGE.unpack_from(data, at)
        if kind == DONE:
            return True
        if kind == ERROR:
            (code,) = struct.unpack_from("=i", data, at + 16)
            raise OSError(-code, os.strerror(-code))
        at += max(length + 3 & ~3, MESSAGE.size)
    return False
