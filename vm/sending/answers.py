# SPDX-License-Identifier: Apache-2.0
"""Which packet of a run a received frame answers. Frames are from anybody: nothing in them is trusted."""

from dataclasses import dataclass

from profiles.tag import ASK, FLOOD, REPLY, find

IPV4, IPV6, TAGS = 0x0800, 0x86DD, (0x8100, 0x88A8)
ICMP, TCP, ICMP6 = 1, 6, 58
ECHO_REPLIES = {(ICMP, 0), (ICMP6, 129)}
ERRORS = {(ICMP, 3), (ICMP, 11), (ICMP, 12), (ICMP6, 1), (ICMP6, 3), (ICMP6, 4)}
SYN, RST, ACK = 0x02, 0x04, 0x10
BY_TCP = frozenset({"syn"})  # kinds whose number is the TCP sequence number


@dataclass(frozen=True)
class Answer:
    """An answer to packet `seq`; refused: by an ICMP error or a reset. `kinds`: of these alone, if said."""

    seq: int
    refused: bool = False
    kinds: frozenset[str] | None = None


def answer(frame: bytes, run: int) -> Answer | None:
    """What a frame answers of this run, None if nothing."""
    at = _layer3(frame)
    if at is None:
        return None
    proto, layer4 = at
    if (seq := find(frame, REPLY, run)) is not None:
        return Answer(seq)
    if proto == TCP:
        return _tcp(frame, layer4, run)
    if layer4 >= len(frame):
        return None
    kind = (proto, frame[layer4])
    if kind in ECHO_REPLIES and (seq := find(frame, ASK, run)) is not None:
        return Answer(seq)
    if kind in ERRORS:
        seq = find(frame, ASK, run)
        seq = find(frame, FLOOD, run) if seq is None else seq
        return None if seq is None else Answer(seq, refused=True)
    return None


def _layer3(frame: bytes) -> tuple[int, int] | None:
    """(protocol, where its header begins); IPv6 extension headers are not passed over."""
    at, ethertype = 14, int.from_bytes(frame[12:14], "big")
    for _ in range(2):
        if ethertype in TAGS:
            ethertype = int.from_bytes(frame[at + 2 : at + 4], "big")
            at += 4
    if ethertype == IPV4 and len(frame) >= at + 20:
        return frame[at + 9], at + (frame[at] & 0xF) * 4
    if ethertype == IPV6 and len(frame) >= at + 40:
        return frame[at + 6], at + 40
    return None


def _tcp(frame: bytes, at: int, run: int) -> Answer | None:
    if len(frame) < at + 20:
        return None
    flags = frame[at + 13]
    if not flags & ACK or not flags & (SYN | RST):
        return None
    acknowledged = int.from_bytes(frame[at + 8 : at + 12], "big")
    return Answer((acknowledged - 1 - run) & 0xFFFFFFFF, bool(flags & RST), BY_TCP)
