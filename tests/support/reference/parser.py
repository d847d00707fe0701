# SPDX-License-Identifier: Apache-2.0
"""Bytes to Packet, by the RFCs: Ethernet, two VLAN tags, IPv4, IPv6 with extensions, layer 4."""

from __future__ import annotations

from collections.abc import Callable

from support.reference.packet import Packet, ipv4_address, ipv6_address
from valkyrie.control.abi import MAX_EXTENSIONS, Fragment, Reason

ICMP, TCP, UDP, GRE, ESP, ICMPV6, NO_NEXT_HEADER, SCTP = 1, 6, 17, 47, 50, 58, 59, 132
HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY, HIP, SHIM6 = 0, 43, 44, 51, 60, 135, 139, 140
EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY, HIP, SHIM6})
VLAN_TYPES = frozenset({0x8100, 0x88A8, 0x9100})
ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0806, 0x0800, 0x86DD
LONGEST_DATAGRAM = 65535


class MalformedError(Exception):
    """The packet is malformed; `reason` says how."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


def parse(frame: bytes) -> Packet:
    """The whole frame, Ethernet header first. Never raises: packet.reason tells what is wrong."""
    packet = Packet(frame_length=len(frame))
    try:
        _parse_ethernet(frame, packet)
    except MalformedError as malformed:
        packet.reason = malformed.reason
    return packet


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _need(holds: bool, otherwise: Reason) -> None:
    if not holds:
        raise MalformedError(otherwise)


def _parse_ethernet(frame: bytes, packet: Packet) -> None:
    _need(len(frame) >= 14, Reason.BAD_ETHERNET)
    at, tags = 14, 0
    kind = _u16(frame, 12)
    while kind in VLAN_TYPES:
        _need(tags < 2 and len(frame) >= at + 4, Reason.BAD_VLAN)
        if not packet.vlan:
            packet.vlan = _u16(frame, at) & 0xFFF
        kind = _u16(frame, at + 2)
        at, tags = at + 4, tags + 1
    if kind == ETHERTYPE_IPV4:
        _parse_ipv4(frame[at:], packet)
    elif kind == ETHERTYPE_IPV6:
        _parse_ipv6(frame[at:], packet)
    else:
        packet.reason = Reason.CONTROL if kind == ETHERTYPE_ARP else Reason.NOT_IP


def _parse_ipv4(data: bytes, packet: Packet) -> None:
    _need(len(data) >= 20 and data[0] >> 4 == 4, Reason.BAD_IPV4)
    header, length = (data[0] & 15) * 4, _u16(data, 2)
    _need(20 <= header <= length <= len(data), Reason.BAD_IPV4)
    packet.version, packet.length, packet.protocol = 4, length, data[9]
    packet.dscp, packet.hop_limit = data[1] >> 2, data[8]
    packet.src, packet.dst = ipv4_address(data[12:16]), ipv4_address(data[16:20])
    word = _u16(data, 6)
    offset, more = (word & 0x1FFF) * 8, bool(word & 0x2000)
    packet.fragment = _fragment(offset, more)
    _need(offset + length - header <= LONGEST_DATAGRAM - header, Reason.BAD_FRAGMENT)
    _parse_layer4(data[header:length], packet)


def _fragment(offset: int, more: bool) -> Fragment:
    if offset:
        return Fragment.LATER
    return Fragment.FIRST if more else Fragment.NONE


def _parse_ipv6(data: bytes, packet: Packet) -> None:
    _need(len(data) >= 40 and data[0] >> 4 == 6, Reason.BAD_IPV6)
    payload, protocol = _u16(data, 4), data[6]
    _need(40 + payload <= len(data), Reason.BAD_IPV6)
    _need(payload > 0 or protocol != HOP_BY_HOP, Reason.BAD_IPV6)
    packet.version, packet.length, packet.protocol = 6, 40 + payload, protocol
    packet.dscp, packet.hop_limit = _u16(data, 0) >> 6 & 63, data[7]
    packet.src, packet.dst = ipv6_address(data[8:24]), ipv6_address(data[24:40])
    _parse_layer4(_skip_extensions(data[40 : 40 + payload], packet), packet)


def _skip_extensions(rest: bytes, packet: Packet) -> bytes:
    """What follows the extension headers; sets protocol, fragment and extensions."""
    fragmented = False
    while packet.protocol in EXTENSIONS and packet.fragment != Fragment.LATER:
        _need(packet.extensions < MAX_EXTENSIONS and len(rest) >= 8, Reason.BAD_EXTENSION)
        size = (rest[1] + 1) * 8
        if packet.protocol == AH:
            size = (rest[1] + 2) * 4
        elif packet.protocol == FRAGMENT:
            _need(not fragmented, Reason.BAD_EXTENSION)
            fragmented, size = True, 8
            offset = _u16(rest, 2) & 0xFFF8
            packet.fragment = _fragment(offset, bool(rest[3] & 1))
            _need(offset + len(rest) - 8 <= LONGEST_DATAGRAM, Reason.BAD_FRAGMENT)
        _need(size <= len(rest), Reason.BAD_EXTENSION)
        packet.protocol = rest[0]
        packet.extensions += 1
        rest = rest[size:]
    return rest


def _parse_layer4(rest: bytes, packet: Packet) -> None:
    if packet.fragment == Fragment.LATER or packet.protocol not in _LAYER4:
        return
    shortest, bad, parse_header = _LAYER4[packet.protocol]
    _need(len(rest) >= shortest, _cut(packet, bad))
    parse_header(rest, packet)
    packet.control = _is_control(packet)


def _cut(packet: Packet, bad: Reason) -> Reason:
    """A header cut short by fragmentation is an evasion of its own."""
    return Reason.BAD_FRAGMENT if packet.fragment == Fragment.FIRST else bad


def _parse_tcp(rest: bytes, packet: Packet) -> None:
    header = (rest[12] >> 4) * 4
    _need(header >= 20, Reason.BAD_TCP)
    _need(header <= len(rest), _cut(packet, Reason.BAD_TCP))
    _parse_ports(rest, packet)
    packet.tcp_flags = rest[13]


def _parse_udp(rest: bytes, packet: Packet) -> None:
    length = _u16(rest, 4)
    _need(length >= 8, Reason.BAD_UDP)
    _need(packet.fragment == Fragment.FIRST or length <= len(rest), Reason.BAD_UDP)
    _parse_ports(rest, packet)


def _parse_icmp(rest: bytes, packet: Packet) -> None:
    packet.icmp = (packet.protocol, rest[0], rest[1])


def _parse_ports(rest: bytes, packet: Packet) -> None:
    packet.sport, packet.dport = _u16(rest, 0), _u16(rest, 2)


def _parse_nothing(rest: bytes, packet: Packet) -> None:
    """GRE: four bytes must be there; none of them is looked at."""


_LAYER4: dict[int, tuple[int, Reason, Callable[[bytes, Packet], None]]] = {
    TCP: (20, Reason.BAD_TCP, _parse_tcp),
    UDP: (8, Reason.BAD_UDP, _parse_udp),
    ICMP: (4, Reason.BAD_ICMP, _parse_icmp),
    ICMPV6: (4, Reason.BAD_ICMP, _parse_icmp),
    SCTP: (12, Reason.BAD_SCTP, _parse_ports),
    GRE: (4, Reason.BAD_GRE, _parse_nothing),
}

_DHCP = {
    4: frozenset({(68, 67), (67, 68), (67, 67)}),
    6: frozenset({(546, 547), (547, 546), (547, 547)}),
}


def _is_control(packet: Packet) -> bool:
    """Neighbour discovery and DHCP: without them a host loses its network."""
    if packet.fragment != Fragment.NONE or packet.version is None:
        return False
    if packet.protocol == UDP:
        return (packet.sport, packet.dport) in _DHCP[packet.version]
    if packet.icmp is None or packet.version != 6 or packet.extensions or packet.hop_limit != 255:
        return False
    protocol, kind, code = packet.icmp
    return protocol == ICMPV6 and 133 <= kind <= 137 and code == 0
