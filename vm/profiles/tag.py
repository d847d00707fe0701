# SPDX-License-Identifier: Apache-2.0
"""The mark in every payload: which run, which number, which kind. It proves which packets were lost.

A mark asks for an answer (`ASK`), or is part of a flood that nobody must answer (`FLOOD`), or is the
answer (`REPLY`). An answer is never answered, so two responders cannot keep each other busy.
"""

import struct
from dataclasses import dataclass

ASK, FLOOD, REPLY = b"VkAs", b"VkFl", b"VkRe"
_LAYOUT = struct.Struct("!4sII12s")
SIZE = _LAYOUT.size


@dataclass(frozen=True)
class Tag:
    """One mark, as it stands in a payload."""

    what: bytes
    run: int
    seq: int
    kind: str


def pack(tag: Tag) -> bytes:
    """The bytes of a mark; a kind has at most 12 letters."""
    return _LAYOUT.pack(tag.what, tag.run, tag.seq, tag.kind.encode("ascii"))


def unpack(data: bytes) -> Tag | None:
    """The mark at the beginning of a payload, None if there is none. The bytes may come from anybody."""
    if len(data) < SIZE or data[:4] not in (ASK, FLOOD, REPLY):
        return None
    what, run, seq, name = _LAYOUT.unpack_from(data)
    kind = name.rstrip(b"\0")
    if not kind or not all(0x21 <= letter <= 0x7E for letter in kind):
        return None
    return Tag(what, run, seq, kind.decode("ascii"))


def find(frame: bytes, what: bytes, run: int) -> int | None:
    """The number of the mark of this run anywhere in a frame, None if there is none."""
    at = frame.find(what + run.to_bytes(4, "big"))
    if at < 0 or at + SIZE > len(frame):
        return None
    return int.from_bytes(frame[at + 8 : at + 12], "big")
