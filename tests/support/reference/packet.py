# SPDX-License-Identifier: Apache-2.0
"""What the parser learns of a packet, and the one form in which addresses are compared."""

from __future__ import annotations

from dataclasses import dataclass

from valkyrie.control.abi import Fragment, Reason

LOW_WORD = (1 << 64) - 1
V4_PREFIX = 0xFFFF << 32


@dataclass(frozen=True, slots=True)
class Address:
    """128 bits, canonical: IPv4 as ::ffff:a.b.c.d. `written`: the IPv6 address that IPv4 stood inside of."""

    value: int
    written: int | None = None

    @property
    def embedded(self) -> bool:
        return self.written is not None

    @property
    def is_ipv4(self) -> bool:
        return self.value >> 32 == 0xFFFF

    @property
    def words(self) -> tuple[int, int]:
        """High and low 64 bits."""
        return self.value >> 64, self.value & LOW_WORD


def ipv4_address(raw: bytes) -> Address:
    """Four bytes of the wire."""
    return Address(V4_PREFIX | int.from_bytes(raw, "big"))


def ipv6_address(raw: bytes) -> Address:
    """Sixteen bytes of the wire; v4-mapped and 6to4 addresses become the IPv4 address they embed."""
    value = int.from_bytes(raw, "big")
    if value >> 112 == 0x2002:
        return Address(V4_PREFIX | (value >> 80 & 0xFFFFFFFF), written=value)
    if value >> 32 == 0xFFFF:
        return Address(value, written=value)
    return Address(value)


@dataclass(slots=True)
class Packet:
    """A parsed frame. None: the packet has no such thing.

    `reason` is set when nothing further is to be looked at: not IP, ARP, or malformed. Addresses are
    there as soon as the IP header was whole, also when what follows it is malformed.
    """

    frame_length: int
    reason: Reason | None = None
    vlan: int | None = None
    version: int | None = None
    length: int = 0
    dscp: int = 0
    protocol: int = 0
    fragment: Fragment = Fragment.NONE
    src: Address | None = None
    dst: Address | None = None
    sport: int | None = None
    dport: int | None = None
    tcp_flags: int | None = None
    icmp: tuple[int, int, int] | None = None
    """(protocol, type, code): protocol 1 or 58, whichever IP version carries it."""
    hop_limit: int = 0
    extensions: int = 0
    control: bool = False
