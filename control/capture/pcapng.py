# SPDX-License-Identifier: Apache-2.0
"""The blocks of a pcapng file (draft-ietf-opsawg-pcapng): one section, an interface for each NIC, and packets
with a comment and the verdict. Pure: each function returns the bytes to write.
"""

from __future__ import annotations

import struct

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
MAGIC = 0x1A2B3C4D
VERSION = (1, 0)
UNKNOWN_LENGTH = -1
ETHERNET = 1  # LINKTYPE_ETHERNET
NANOSECONDS = 9
MOST_COMMENT = 1000  # bytes

END_OF_OPTIONS, COMMENT, APPLICATION, NAME, RESOLUTION, VERDICT = 0, 1, 4, 2, 9, 7
XDP_VERDICT = b"\x02"  # of epb_verdict: what follows is what an eBPF program returned at XDP
XDP_DROP, XDP_PASS = 1, 2


def section(comment: str, application: str) -> bytes:
    """How a file begins."""
    body = struct.pack("<IHHq", MAGIC, *VERSION, UNKNOWN_LENGTH)
    return _block(SECTION, body + _options((COMMENT, _text(comment)), (APPLICATION, _text(application))))


def interface(name: str, snaplen: int) -> bytes:
    """The next interface; they are counted from 0 on. Before its first packet."""
    body = struct.pack("<HHI", ETHERNET, 0, snaplen)
    return _block(INTERFACE, body + _options((NAME, _text(name)), (RESOLUTION, bytes([NANOSECONDS]))))


def packet(number: int, time_ns: int, data: bytes, length: int, comment: str, *, dropped: bool) -> bytes:
    """A frame of `length` bytes, of which `data` are the first, at interface `number`; ns since 1970."""
    head = struct.pack("<IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
    verdict = XDP_VERDICT + struct.pack("<Q", XDP_DROP if dropped else XDP_PASS)
    options = _options((COMMENT, _text(comment)), (VERDICT, verdict))
    return _block(PACKET, head + _padded(data) + options)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _options(*options: tuple[int, bytes]) -> bytes:
    parts = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join([*parts, struct.pack("<HH", END_OF_OPTIONS, 0)])


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


def _text(text: str) -> bytes:
    """UTF-8, cut to a bound between characters."""
    return text.encode()[:MOST_COMMENT].decode(errors="ignore").encode()
