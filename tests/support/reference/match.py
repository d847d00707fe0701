# SPDX-License-Identifier: Apache-2.0
"""Which packets a limit is about: each condition looked at in turn, no bitmaps, no trees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from support.reference.packet import Address, Packet
from support.reference.parser import ICMP, ICMPV6, SCTP, TCP, UDP
from valkyrie.control.abi import Fragment

Prefix = IPv4Network | IPv6Network
Range = tuple[int, int]
WITH_PORTS = frozenset({TCP, UDP, SCTP})


def covers(prefix: Prefix, address: Address) -> bool:
    """Whether the address lies in the prefix, either as it is written or as the IPv4 inside."""
    if prefix.version == 4:
        value = address.value & 0xFFFFFFFF if address.is_ipv4 else None
    else:
        value = address.written if address.is_ipv4 else address.value
    return (
        value is not None
        and (value ^ int(prefix.network_address)) >> (prefix.max_prefixlen - prefix.prefixlen) == 0
    )


def longest(prefixes: Iterable[Prefix]) -> Prefix:
    """Of prefixes that cover one address: those of IPv4 are longer than those of IPv6 around it."""
    return max(prefixes, key=lambda prefix: (prefix.version == 4, prefix.prefixlen))


def _among(prefixes: tuple[Prefix, ...], address: Address) -> bool:
    return any(covers(prefix, address) for prefix in prefixes)


def _inside(ranges: tuple[Range, ...], value: int | None) -> bool:
    return value is not None and any(low <= value <= high for low, high in ranges)


@dataclass(frozen=True, slots=True)
class Match:
    """Empty fields constrain nothing. `vlan` None inside the tuple: untagged, or tagged with id 0 alone."""

    src: tuple[Prefix, ...] = ()
    dst: tuple[Prefix, ...] = ()
    protocols: tuple[int, ...] = ()
    sport: tuple[Range, ...] = ()
    dport: tuple[Range, ...] = ()
    vlan: tuple[int | None, ...] = ()
    dscp: tuple[Range, ...] = ()
    tcp_flags: tuple[int, int] | None = None
    """(value, mask): flags & mask == value."""
    icmp: frozenset[tuple[int, int]] = frozenset()
    """(protocol, type), protocol 1 or 58."""
    lengths: tuple[Range, ...] = ()
    interfaces: tuple[str, ...] = ()
    fragments: str = "skip"
    version: int | None = None

    def holds(self, packet: Packet, interface: str | None) -> bool:
        """Whether a well-formed packet that came in at `interface` is one of these."""
        assert packet.src is not None
        assert packet.dst is not None
        return (
            (not self.src or _among(self.src, packet.src))
            and (not self.dst or _among(self.dst, packet.dst))
            and (not self.protocols or packet.protocol in self.protocols)
            and (not self.vlan or packet.vlan in self.vlan or (None in self.vlan and packet.vlan == 0))
            and (not self.dscp or _inside(self.dscp, packet.dscp))
            and (not self.lengths or _inside(self.lengths, packet.length))
            and (not self.interfaces or interface in self.interfaces)
            and self.version in (None, packet.version)
            and self._fragment_holds(packet.fragment)
            and self._layer4_holds(packet)
        )

    def _fragment_holds(self, fragment: Fragment) -> bool:
        if self.fragments == "only":
            return fragment != Fragment.NONE
        return self.fragments != "never" or fragment == Fragment.NONE

    def _layer4_holds(self, packet: Packet) -> bool:
        """Ports, flags and ICMP type; a later fragment has none, and the fragment policy stands in."""
        ports = bool(self.sport or self.dport)
        if not ports and self.tcp_flags is None and not self.icmp:
            return True
        if packet.fragment == Fragment.LATER:
            return self.fragments in ("match", "only") and self._protocol_could_hold(packet.protocol)
        return (
            (not self.sport or _inside(self.sport, packet.sport))
            and (not self.dport or _inside(self.dport, packet.dport))
            and (self.tcp_flags is None or self._flags_hold(packet.tcp_flags))
            and (not self.icmp or (packet.icmp is not None and packet.icmp[:2] in self.icmp))
        )

    def _protocol_could_hold(self, protocol: int) -> bool:
        """Whether the whole datagram could have had what is asked for."""
        return (
            (not self.sport or protocol in WITH_PORTS)
            and (not self.dport or protocol in WITH_PORTS)
            and (self.tcp_flags is None or protocol == TCP)
            and (not self.icmp or protocol in (ICMP, ICMPV6))
        )

    def _flags_hold(self, flags: int | None) -> bool:
        assert self.tcp_flags is not None
        value, mask = self.tcp_flags
        return flags is not None and flags & mask == value
