# SPDX-License-Identifier: Apache-2.0
"""Fragments of the target's family: whole datagrams in three parts, tiny first parts, overlapping ones.

A stock kernel puts the first sort together and answers it. Overlapping ones it throws away, tiny ones
(a TCP header in two parts, the ports alone in the first) are what firewalls must not be fooled by.
"""

from random import Random
from typing import Any

from scapy.layers.inet import TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Raw

from profiles.layers import ether, ip, payload, source, udp
from profiles.target import Address, Made, Target

KINDS = ("frag", "tiny", "overlap")
UDP_NUMBER, TCP_NUMBER = 17, 6
PART = 208  # a multiple of eight, as every part but the last must be
WHOLE = 3 * PART - 8 - 5  # payload of three parts, the last not a multiple of eight
TINY = 8


def make(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One packet in fragments, the kinds in turn."""
    name = KINDS[turn % len(KINDS)]
    src = source(target, chance)
    kind = f"{name}{target.dst.version}"
    asks = name == "frag" and target.sources is None
    if name == "tiny":
        data = _transport(
            target, src, TCP(sport=chance.randint(1024, 65535), dport=target.tcp_port, flags="S")
        )
        parts = [(0, data[:TINY]), (TINY, data[TINY:])]
        return _made(target, src, seq, kind, TCP_NUMBER, parts, asks=asks)
    content = payload(target, seq, kind, asks=asks, length=WHOLE)
    data = _transport(target, src, udp(target, content))
    back = 8 if name == "overlap" else 0
    third = len(data) // 3 // 8 * 8
    starts = (0, third - back, 2 * third)
    ends = (third, 2 * third, len(data))
    parts = [(start, data[start:end]) for start, end in zip(starts, ends, strict=True)]
    return _made(target, src, seq, kind, UDP_NUMBER, parts, asks=asks)


def _transport(target: Target, src: Address, layer: Any) -> bytes:
    """The bytes of a transport layer with the checksum that it has between these addresses."""
    whole = ip(target, src, 0) / layer
    return bytes(whole)[len(bytes(ip(target, src, 0))) :]


def _made(
    target: Target,
    src: Address,
    seq: int,
    kind: str,
    proto: int,
    parts: list[tuple[int, bytes]],
    *,
    asks: bool,
) -> Made:
    last = parts[-1][0]
    frames = tuple(
        bytes(ether(target) / _header(target, src, seq, proto, start, more=start != last) / Raw(data))
        for start, data in parts
    )
    return Made(kind, seq, frames, asks)


def _header(target: Target, src: Address, seq: int, proto: int, start: int, *, more: bool) -> Any:
    if target.dst.version == 4:
        return ip(target, src, seq, proto=proto, flags="MF" if more else 0, frag=start // 8)
    part = IPv6ExtHdrFragment(nh=proto, offset=start // 8, m=int(more), id=(target.run + seq) & 0xFFFFFFFF)
    header: IPv6 = ip(target, src, seq, nh=44)
    return header / part
