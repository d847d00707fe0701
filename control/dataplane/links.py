# SPDX-License-Identifier: Apache-2.0
"""NICs and their XDP programs by rtnetlink: asked for and changed, without a netlink library.

The one that exists takes a tenth of a second to load and ten MB to keep, for three kinds of messages.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from valkyrie.control.dataplane.watch import ATTRIBUTE, IFNAME, LINK, MESSAGE, XDP, LinkEvent, parse
from valkyrie.control.errors import Unavailable

GETLINK, SETLINK = 18, 19
REQUEST, ACKNOWLEDGE, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
NESTED = 0x8000
XDP_FD, XDP_FLAGS, XDP_EXPECTED_FD = 1, 3, 8
NUMBER = struct.Struct("=i")
MAX_NIC_NAME = 15
RECEIVE_BYTES = 1 << 18
SECONDS = 5


def links() -> list[LinkEvent]:
    """Every NIC of the current network namespace. Raises Unavailable."""
    try:
        return [link for data in _answers(_message(GETLINK, DUMP, 0)) for link in parse(data)]
    except OSError as error:
        raise _unavailable("listing the NICs", error) from error


def named(name: str) -> LinkEvent | None:
    """The NIC of that name. Raises Unavailable."""
    raw = name.encode()
    if not 0 < len(raw) <= MAX_NIC_NAME or b"\0" in raw:
        return None
    request = _message(GETLINK, ACKNOWLEDGE, 0, _attribute(IFNAME, raw + b"\0"))
    try:
        return next((link for data in _answers(request) for link in parse(data)), None)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise _unavailable(f"looking for {name}", error) from error


def set_xdp(ifindex: int, fd: int, flags: int, expected: int | None = None) -> None:
    """Attach the program `fd`, or none if it is -1; XDP_FLAGS_* say how, and with XDP_FLAGS_REPLACE
    `expected` is what must be there until then. Raises OSError with the kernel's number.
    """
    wanted = _attribute(XDP_FD, NUMBER.pack(fd)) + _attribute(XDP_FLAGS, NUMBER.pack(flags))
    if expected is not None:
        wanted += _attribute(XDP_EXPECTED_FD, NUMBER.pack(expected))
    for _ in _answers(_message(SETLINK, ACKNOWLEDGE, ifindex, _attribute(XDP | NESTED, wanted))):
        pass


def _attribute(kind: int, data: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, flags: int, ifindex: int, attributes: bytes = b"") -> bytes:
    body = LINK.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + attributes
    return MESSAGE.pack(MESSAGE.size + len(body), kind, REQUEST | flags, 1, 0) + body


def _answers(request: bytes) -> Iterator[bytes]:
    """The datagrams that answer it. Raises OSError if the kernel refuses, or says nothing for SECONDS."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.settimeout(SECONDS)
        netlink.bind((0, 0))
        netlink.send(request)
        ended = False
        while not ended:
            data = netlink.recv(RECEIVE_BYTES)
            ended = _ends(data)
            yield data


def _ends(data: bytes) -> bool:
    """Whether the answer ends with this datagram. Raises OSError if the kernel refused."""
    at = 0
    while at + MESSAGE.size <= len(data):
        length, kind, _, _, _ = MESSAGE.unpack_from(data, at)
        if kind == DONE:
            return True
        if kind == ERROR:
            (code,) = NUMBER.unpack_from(data, at + MESSAGE.size)
            if code != 0:  # 0 acknowledges
                raise OSError(-code, os.strerror(-code))
            return True
        at += max(length + 3 & ~3, MESSAGE.size)
    return False


def _unavailable(doing: str, error: OSError) -> Unavailable:
    why = os.strerror(error.errno) if error.errno else str(error)
    return Unavailable(f"{doing}: {why}", "the kernel refuses netlink: check the service's sandbox")
