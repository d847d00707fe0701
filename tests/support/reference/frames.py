# SPDX-License-Identifier: Apache-2.0
"""Frames as bytes: exact builders, and random frames in which limits and parsers find much to do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address
from random import Random

ETHERTYPE = {4: 0x0800, 6: 0x86DD}
V4_POOL = tuple(ip_address(f"10.0.{i}.{j}").packed for i in range(2) for j in range(4)) + tuple(
    ip_address(text).packed
    for text in ("192.0.2.1", "198.51.100.7", "203.0.113.200", "0.0.0.0", "255.255.255.255")
)
V6_POOL = tuple(
    ip_address(text).packed
    for text in (
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8:0:1::1",
        "2001:db8:0:1:8000::",
        "2001:db8:ffff::1",
        "fe80::1",
        "ff02::1",
        "::",
        "::1",
        "::10.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:10.0.1.2",
        "2002:a00:1::1",
        "2002:a00:1:ffff::",
        "2002:c000:201::7",
        "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2003::",
    )
)
PORTS = (0, 53, 67, 68, 80, 443, 546, 547, 1023, 1024, 8080, 40000, 65535)
PROTOCOLS = (6, 6, 6, 17, 17, 17, 1, 58, 132, 47, 50, 59, 33, 136, 0, 4, 41, 255)
TCP_FLAGS = (0, 1, 2, 4, 16, 18, 24, 255)
ICMP_TYPES = (0, 3, 5, 8, 11, 128, 129, 133, 135, 137, 138)
TELLING_BYTES = (0, 1, 4, 5, 6, 17, 43, 44, 51, 58, 59, 60, 0x45, 0x4F, 0x60, 0x7F, 0xFF)
EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140)


def ethernet(kind: int, payload: bytes, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """`tags`: (EtherType, TCI), outermost first."""
    head = b"\x02\0\0\0\0\2\x02\0\0\0\0\1"
    return head + b"".join(struct.pack("!HH", *tag) for tag in tags) + struct.pack("!H", kind) + payload


def ipv4(
    src: bytes,
    dst: bytes,
    protocol: int,
    payload: bytes = b"",
    *,
    tos: int = 0,
    fragment: int = 0,
    options: bytes = b"",
    length: int | None = None,
) -> bytes:
    """`fragment`: the flags and offset word; `options`: a multiple of four bytes; `length`: when it lies."""
    words = 5 + len(options) // 4
    total = words * 4 + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH", 0x40 | words, tos, total & 0xFFFF, 1, fragment, 64, protocol, 0)
    return head + src + dst + options + payload


def ipv6(
    src: bytes,
    dst: bytes,
    protocol: int,
    payload: bytes = b"",
    *,
    traffic_class: int = 0,
    hop_limit: int = 64,
    length: int | None = None,
) -> bytes:
    """`length`: the payload length when it lies."""
    size = len(payload) if length is None else length
    head = struct.pack("!IHBB", 6 << 28 | traffic_class << 20 | 0x5A5A5, size & 0xFFFF, protocol, hop_limit)
    return head + src + dst + payload


def extension(kind: int, following: int, units: int = 0) -> bytes:
    """A header of that kind, whole, of `units` beyond its least size; a fragment header is atomic."""
    if kind == 44:
        return fragment_header(following, 0)
    size = (units + 2) * 4 if kind == 51 else (units + 1) * 8
    return bytes((following, units)) + bytes(size - 2)


def fragment_header(following: int, offset_and_more: int) -> bytes:
    """The word holds the offset in its upper 13 bits and "more" in its lowest."""
    return struct.pack("!BBHI", following, 0, offset_and_more, 0xABCD)


def tcp(sport: int, dport: int, flags: int, options: bytes = b"") -> bytes:
    """`options`: a multiple of four bytes."""
    offset = (5 + len(options) // 4) << 4
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 2, offset, flags, 512, 0, 0) + options


def udp(sport: int, dport: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """`length`: when it lies."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload) if length is None else length, 0) + payload


def icmp_echo(kind: int = 8) -> bytes:
    """An echo request, or another ICMP type without a code."""
    return bytes((kind, 0, 0, 0, 0, 1, 0, 1))


def random_frame(rng: Random) -> bytes:
    """Mostly a well-formed frame out of small pools, so that limits match and buckets are shared."""
    if rng.randrange(40) == 0:
        return ethernet(rng.choice((0x0806, 0x88CC, 0x0026, 0x8864)), rng.randbytes(rng.randrange(60)))
    tag_kinds = (0x8100, 0x88A8, 0x9100)
    count = rng.choice((0, 0, 0, 1, 2, 2, 3)) if rng.randrange(3) == 0 else 0
    tags = tuple((rng.choice(tag_kinds), rng.choice((0, 10, 20, 0xE00A, 4095, 0x1FFF))) for _ in range(count))
    version = rng.choice((4, 6))
    packet = (_random_ipv4 if version == 4 else _random_ipv6)(rng)
    return ethernet(ETHERTYPE[version], packet, tags) + bytes(rng.choice((0, 0, 0, 1, 18)))


def _random_ipv4(rng: Random) -> bytes:
    protocol = rng.choice(PROTOCOLS)
    fragment = rng.choice((0, 0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0010, 0x1FFD, 0x1FFF, 0x3FFF, 0x8000))
    return ipv4(
        rng.choice(V4_POOL),
        rng.choice(V4_POOL),
        protocol,
        _random_layer4(rng, protocol),
        tos=rng.choice((0, 0xB8, 0x28, 0xFF)),
        fragment=fragment,
        options=bytes(4 * rng.choice((0, 0, 0, 1, 10))),
    )


def _random_ipv6(rng: Random) -> bytes:
    protocol = rng.choice(PROTOCOLS)
    payload = _random_layer4(rng, protocol)
    count = rng.choice((0, 0, 0, 1, 1, 2, 7, 8, 9))
    for _ in range(count):
        kind = rng.choice(EXTENSIONS)
        if kind == 44:
            head = fragment_header(protocol, rng.choice((0, 1, 8, 9, 0xFFF8, 0xFFF9, 6)))
        else:
            head = extension(kind, protocol, rng.choice((0, 0, 1, 3)))
        payload, protocol = head + payload, kind
    return ipv6(
        rng.choice(V6_POOL),
        rng.choice(V6_POOL),
        protocol,
        payload,
        traffic_class=rng.choice((0, 0xB8, 0x28, 0xFF)),
        hop_limit=rng.choice((255, 64)),
    )


def _random_layer4(rng: Random, protocol: int) -> bytes:
    sport, dport = rng.choice(PORTS), rng.choice(PORTS)
    body = bytes(rng.choice((0, 0, 1, 8, 100, 400)))
    if protocol == 6:
        return tcp(sport, dport, rng.choice(TCP_FLAGS), bytes(4 * rng.choice((0, 0, 3, 10)))) + body
    if protocol == 17:
        return udp(sport, dport, body)
    if protocol in (1, 58):
        return bytes((rng.choice(ICMP_TYPES), rng.choice((0, 0, 0, 1)), 0, 0)) + body
    if protocol == 132:
        return struct.pack("!HHII", sport, dport, 7, 0) + body
    return bytes(4) + body


def _truncate(rng: Random, frame: bytes) -> bytes:
    return frame[: rng.randrange(14, len(frame) + 1)] if len(frame) > 14 else frame


def _flip_bit(rng: Random, frame: bytes) -> bytes:
    at = rng.randrange(12, len(frame))
    return frame[:at] + bytes((frame[at] ^ 1 << rng.randrange(8),)) + frame[at + 1 :]


def _set_byte(rng: Random, frame: bytes) -> bytes:
    at = rng.randrange(12, len(frame))
    value = rng.choice((*TELLING_BYTES, rng.randrange(256)))
    return frame[:at] + bytes((value,)) + frame[at + 1 :]


def _set_word(rng: Random, frame: bytes) -> bytes:
    at = rng.randrange(12, len(frame) - 1)
    value = rng.choice((0, 1, 7, 8, 20, 39, 40, len(frame) - 14, len(frame) - 34, 0x2000, 0x8100, 0xFFFF))
    return frame[:at] + struct.pack("!H", value & 0xFFFF) + frame[at + 2 :]


def _drop_piece(rng: Random, frame: bytes) -> bytes:
    at = rng.randrange(12, len(frame))
    return frame[:at] + frame[at + rng.randrange(1, 9) :]


def _insert_piece(rng: Random, frame: bytes) -> bytes:
    at = rng.randrange(12, len(frame) + 1)
    return frame[:at] + rng.randbytes(rng.randrange(1, 9)) + frame[at:]


def _noise(rng: Random, frame: bytes) -> bytes:
    return frame[:14] + rng.randbytes(rng.randrange(0, 120))


def _lower_length(rng: Random, frame: bytes) -> bytes:
    """The IP header declares less than it did: what follows is cut short though its bytes are there."""
    at = {0x0800: 16, 0x86DD: 18}.get(int.from_bytes(frame[12:14], "big"))
    if at is None or len(frame) < at + 2:
        return frame
    declared = int.from_bytes(frame[at : at + 2], "big")
    lower = rng.randrange(max(0, declared - 60), declared + 1)
    return frame[:at] + struct.pack("!H", lower) + frame[at + 2 :]


MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _truncate,
    _truncate,
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_byte,
    _set_word,
    _set_word,
    _lower_length,
    _lower_length,
    _lower_length,
    _drop_piece,
    _insert_piece,
    _noise,
)


def mutate(rng: Random, frame: bytes) -> bytes:
    """Up to three mutations; at least the 14 bytes of an Ethernet header stay."""
    for _ in range(rng.randrange(1, 4)):
        frame = rng.choice(MUTATIONS)(rng, frame)
        if len(frame) < 14:
            return frame + bytes(14 - len(frame))
    return frame
