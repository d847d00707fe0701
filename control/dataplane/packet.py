# SPDX-License-Identifier: Apache-2.0
"""A packet in words, and its bytes: what `limits explain` asks the loaded program about.

    src 198.51.100.7 dst 203.0.113.1 proto tcp sport 5000 dport 443 syn | tcp-flags SYN,ACK
    icmp-type echo-request  vlan 10  dscp ef  length 128  fragment first|later  iface eth0  ip 4|6

Every word may be left out.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from valkyrie.control.errors import InvalidInput
from valkyrie.control.words import (
    DSCP,
    ICMP,
    ICMP4_TYPES,
    ICMP6,
    ICMP6_TYPES,
    PROTOCOLS,
    TCP,
    TCP_FLAGS,
    WITH_PORTS,
    number,
    suggest,
)

LONGEST = 3000  # bytes of an IP packet: what a test run takes in one page, beside its own headroom
MAX_TEXT = 1000
FRAGMENTS = ("none", "first", "later")
LATER_OFFSET = 185  # in units of 8 bytes: where the second fragment of 1500 byte packets begins
ETHERNET = bytes.fromhex("020000000001020000000002")
UDP, GRE, ESP, AH, SCTP = (PROTOCOLS[name] for name in ("udp", "gre", "esp", "ah", "sctp"))
IPV6_FRAGMENT, NO_NEXT_HEADER = 44, 59
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Packet:
    """What was said of a packet; None where nothing was."""

    src: Address | None = None
    dst: Address | None = None
    proto: int | None = None
    sport: int | None = None
    dport: int | None = None
    flags: int | None = None
    icmp_type: str | None = None
    vlan: int | None = None
    dscp: int = 0
    length: int | None = None
    fragment: str = "none"
    iface: str | None = None
    ip: int | None = None


def _address(field: str, word: str) -> Address:
    try:
        return ip_address(word)
    except ValueError as error:
        raise InvalidInput(
            f"{field}: {word[:64]!r} is no address",
            "write one address, as 198.51.100.7 or 2001:db8::1",
            word[:64],
        ) from error


def _flags(field: str, word: str) -> int:
    bits = 0
    for name in word.split(","):
        if name.upper() not in TCP_FLAGS:
            raise InvalidInput(
                f"{field}: {name[:64]!r} is unknown", suggest(name, TCP_FLAGS, "flags"), name[:64]
            )
        bits |= TCP_FLAGS[name.upper()]
    return bits


def _one_of(names: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(field: str, word: str) -> str:
        if word not in names:
            raise InvalidInput(f"{field}: {word[:64]!r} is unknown", suggest(word, names, field), word[:64])
        return word

    return read


def _number(low: int, high: int, names: dict[str, int] | None = None) -> Callable[[str, str], int]:
    return lambda field, word: number(field, word, low, high, names)


READERS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "src": ("src", _address),
    "dst": ("dst", _address),
    "proto": ("proto", _number(0, 255, PROTOCOLS)),
    "sport": ("sport", _number(0, 65535)),
    "dport": ("dport", _number(0, 65535)),
    "tcp-flags": ("flags", _flags),
    "icmp-type": ("icmp_type", lambda _, word: word),
    "vlan": ("vlan", _number(0, 4095)),
    "dscp": ("dscp", _number(0, 63, DSCP)),
    "length": ("length", _number(20, LONGEST)),
    "fragment": ("fragment", _one_of(FRAGMENTS)),
    "iface": ("iface", lambda _, word: word),
    "ip": ("ip", lambda field, word: int(_one_of(("4", "6"))(field, word))),
}


def parse(text: str) -> Packet:
    """The packet that the words say. Raises InvalidInput naming the word that is wrong."""
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"a packet in {len(text)} characters", f"at most {MAX_TEXT}")
    said: dict[str, object] = {}
    words = iter(text.split())
    for word in words:
        name, reader = READERS.get(word, ("flags", _flags))
        if word == "syn":
            value: object = TCP_FLAGS["SYN"]
        elif word not in READERS:
            raise InvalidInput(
                f"unknown word {word[:64]!r}", suggest(word, [*READERS, "syn"], "words"), word[:64]
            )
        else:
            given = next(words, None)
            if given is None:
                raise InvalidInput(
                    f"{word} has no value", f"for example {word} {_EXAMPLES.get(word, '1')}", word
                )
            value = reader(word, given)
        if name in said:
            raise InvalidInput(f"{word} is said twice", "a packet has one of each", word)
        said[name] = value
    return _settled(Packet(**said))  # type: ignore[arg-type]  # READERS pairs each with its type


_EXAMPLES = {
    "src": "198.51.100.7",
    "dst": "203.0.113.1",
    "proto": "tcp",
    "tcp-flags": "SYN,ACK",
    "icmp-type": "echo-request",
    "dscp": "ef",
    "fragment": "first",
    "iface": "eth0",
    "ip": "4",
}


def _settled(said: Packet) -> Packet:
    """With a version, addresses and a protocol that fit together."""
    versions = {found.version for found in (said.src, said.dst) if found} | ({said.ip} if said.ip else set())
    if len(versions) > 1:
        raise InvalidInput("IPv4 and IPv6 in one packet", "write src, dst and ip of one version")
    version = versions.pop() if versions else 4
    ours = ("192.0.2.1", "192.0.2.2") if version == 4 else ("2001:db8::1", "2001:db8::2")
    proto = said.proto if said.proto is not None else _implied(said, version)
    _consistent(said, proto)
    return replace(
        said,
        ip=version,
        proto=proto,
        src=said.src or ip_address(ours[0]),
        dst=said.dst or ip_address(ours[1]),
    )


def _implied(said: Packet, version: int) -> int:
    if said.icmp_type is not None:
        return ICMP if version == 4 else ICMP6
    return UDP if said.flags is None and said.sport is None and said.dport is None else TCP


def _consistent(said: Packet, proto: int) -> None:
    if said.flags is not None and proto != TCP:
        raise InvalidInput("TCP flags in a packet that is not TCP", "write proto tcp", "tcp-flags")
    if said.icmp_type is not None and proto not in (ICMP, ICMP6):
        raise InvalidInput(
            "an ICMP type in a packet that is not ICMP", "write proto icmp or icmp6", "icmp-type"
        )
    if proto not in WITH_PORTS and (said.sport, said.dport) != (None, None):
        raise InvalidInput(
            "ports in a packet whose protocol has none", "write proto tcp, udp or sctp", "proto"
        )


def _transport(packet: Packet) -> bytes:
    """The layer 4 header, without checksums: nobody looks at them."""
    sport, dport = packet.sport or 0, packet.dport or 0
    flags = TCP_FLAGS["ACK"] if packet.flags is None else packet.flags
    icmp = 0
    if packet.icmp_type is not None:
        names = ICMP4_TYPES if packet.proto == ICMP else ICMP6_TYPES
        icmp = number("icmp-type", packet.icmp_type, 0, 255, names)
    headers = {
        TCP: struct.pack("!HHIIBBHHH", sport, dport, 0, 0, 5 << 4, flags, 0, 0, 0),
        UDP: struct.pack("!HHHH", sport, dport, 8, 0),
        SCTP: struct.pack("!HHII", sport, dport, 0, 0),
        ICMP: struct.pack("!BBHI", icmp, 0, 0, 0),
        ICMP6: struct.pack("!BBHI", icmp, 0, 0, 0),
        GRE: struct.pack("!HH", 0, 0x0800),
        ESP: bytes(8),
        AH: struct.pack("!BBHII", NO_NEXT_HEADER, 1, 0, 0, 0),
    }
    return headers.get(packet.proto or 0, b"")


def build(packet: Packet) -> bytes:
    """The Ethernet frame of a packet that parse() gave. Raises InvalidInput if `length` is too short."""
    later = packet.fragment == "later"
    body = b"" if later else _transport(packet)
    head = 20 if packet.ip == 4 else 40 + (8 if packet.fragment != "none" else 0)
    least = head + len(body)
    length = packet.length if packet.length is not None else least + (8 if packet.fragment != "none" else 0)
    if length < least:
        raise InvalidInput(f"length {length} is shorter than the headers", f"at least {least}", str(length))
    body += bytes(length - least)
    if packet.proto == UDP and not later:
        body = body[:4] + struct.pack("!H", len(body)) + body[6:]
    tag = b"" if packet.vlan is None else struct.pack("!HH", 0x8100, packet.vlan)
    if packet.ip == 4:
        return ETHERNET + tag + struct.pack("!H", 0x0800) + _ipv4(packet, length) + body
    return ETHERNET + tag + struct.pack("!H", 0x86DD) + _ipv6(packet, len(body)) + body


def _ipv4(packet: Packet, length: int) -> bytes:
    place = {"none": 0, "first": 0x2000, "later": LATER_OFFSET}[packet.fragment]
    assert packet.src is not None
    assert packet.dst is not None
    return struct.pack(
        "!BBHHHBBH4s4s", 0x45, packet.dscp << 2, length, 0, place, 64, packet.proto or 0, 0,
        packet.src.packed, packet.dst.packed,
    )  # fmt: skip


def _ipv6(packet: Packet, body: int) -> bytes:
    assert packet.src is not None
    assert packet.dst is not None
    proto, fragment = packet.proto or 0, b""
    if packet.fragment != "none":
        place = 1 if packet.fragment == "first" else LATER_OFFSET << 3
        fragment = struct.pack("!BBHI", proto, 0, place, 0)
        proto = IPV6_FRAGMENT
    first = 6 << 28 | packet.dscp << 22
    return (
        struct.pack(
            "!IHBB16s16s", first, body + len(fragment), proto, 64, packet.src.packed, packet.dst.packed
        )
        + fragment
    )
