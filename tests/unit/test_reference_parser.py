# SPDX-License-Identifier: Apache-2.0
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from support.reference.parser import parse
from valkyrie.control.abi import Fragment, Reason


def frame(layers: object) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / layers)


def v4(value: str) -> int:
    return 0xFFFF << 32 | int(ip_address(value))


def ipv6(payload: bytes, following: int, source: bytes = b"\x20\x01\x0d\xb8" + bytes(12)) -> bytes:
    """An IPv6 frame of bare bytes: what scapy would mend."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), following, 64)
    return bytes(12) + b"\x86\xdd" + head + source + bytes(15) + b"\1" + payload


def ipv4(payload: bytes, protocol: int, fragment: int = 0, length: int | None = None) -> bytes:
    total = 20 + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, fragment, 64, protocol, 0)
    return bytes(12) + b"\x08\x00" + head + b"\xc0\0\2\1\xc6\x33\x64\1" + payload


TCP_HEADER = bytes(Raw(bytes(TCP(sport=1, dport=2))))


def test_a_tcp_packet_is_read_field_by_field() -> None:
    ip = IP(src="192.0.2.1", dst="198.51.100.7", tos=0xB8)
    packet = parse(frame(ip / TCP(sport=40000, dport=443, flags="S") / b"hello"))
    assert packet.reason is None
    assert (packet.version, packet.protocol, packet.length, packet.frame_length) == (4, 6, 45, 59)
    assert packet.src is not None
    assert packet.dst is not None
    assert (packet.src.value, packet.dst.value) == (v4("192.0.2.1"), v4("198.51.100.7"))
    assert (packet.sport, packet.dport, packet.tcp_flags, packet.dscp) == (40000, 443, 2, 46)
    assert (packet.vlan, packet.fragment, packet.control) == (None, Fragment.NONE, False)


def test_the_outer_of_two_tags_is_the_vlan() -> None:
    packet = parse(frame(Dot1AD(vlan=100) / Dot1Q(vlan=7) / IP() / UDP(sport=1, dport=2)))
    assert (packet.reason, packet.vlan, packet.dport) == (None, 100, 2)


def test_a_third_tag_is_malformed() -> None:
    assert parse(frame(Dot1Q() / Dot1Q() / Dot1Q() / IP() / UDP())).reason == Reason.BAD_VLAN


def test_options_of_ipv4_are_skipped() -> None:
    packet = parse(frame(IP(options=[IPOption_NOP()] * 8) / UDP(sport=5, dport=6)))
    assert (packet.reason, packet.sport, packet.dport) == (None, 5, 6)


@pytest.mark.parametrize(
    ("carrier", "protocol"), [(IP(proto=132), 132), (IPv6(nh=132), 132)], ids=["over IPv4", "over IPv6"]
)
def test_sctp_has_ports(carrier: Packet, protocol: int) -> None:
    packet = parse(frame(carrier / SCTP(sport=9, dport=10)))
    assert (packet.protocol, packet.sport, packet.dport) == (protocol, 9, 10)


def test_gre_has_no_ports() -> None:
    packet = parse(frame(IP() / GRE() / IP() / UDP()))
    assert (packet.reason, packet.protocol, packet.sport) == (None, 47, None)


def test_icmp_types_are_told_apart_by_protocol_whoever_carries_them() -> None:
    assert parse(frame(IP() / ICMP(type=8))).icmp == (1, 8, 0)
    assert parse(frame(IPv6() / ICMPv6EchoRequest())).icmp == (58, 128, 0)
    assert parse(frame(IPv6(nh=1) / ICMP(type=8))).icmp == (1, 8, 0)
    assert parse(frame(IP(proto=58) / ICMP(type=8))).icmp == (58, 8, 0)


def test_extension_headers_lead_to_layer_4() -> None:
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt()
    packet = parse(frame(IPv6(tc=0xB8) / chain / UDP(sport=3, dport=4)))
    assert (packet.reason, packet.extensions, packet.dport, packet.dscp) == (None, 3, 4, 46)


@pytest.mark.parametrize(("count", "reason"), [(8, None), (9, Reason.BAD_EXTENSION)])
def test_eight_extension_headers_are_as_many_as_there_may_be(count: int, reason: Reason | None) -> None:
    chain = (b"\x3c" + bytes(7)) * (count - 1) + b"\x3b" + bytes(7)
    assert parse(ipv6(chain, following=60)).reason == reason


def test_an_authentication_header_counts_in_words_of_four_bytes() -> None:
    packet = parse(ipv6(b"\x11\4" + bytes(22) + b"\0\1\0\2\0\x08\0\0", following=51))
    assert (packet.reason, packet.sport, packet.dport) == (None, 1, 2)


@pytest.mark.parametrize("cut", range(1, 8))
def test_an_extension_header_cut_short_is_malformed(cut: int) -> None:
    assert parse(ipv6((b"\x3b" + bytes(7))[:cut], following=60)).reason == Reason.BAD_EXTENSION


def test_an_extension_header_longer_than_the_packet_is_malformed() -> None:
    assert parse(ipv6(b"\x3b\1" + bytes(6), following=60)).reason == Reason.BAD_EXTENSION


def test_nothing_follows_no_next_header() -> None:
    packet = parse(ipv6(b"", following=59))
    assert (packet.reason, packet.protocol, packet.length) == (None, 59, 40)


def test_a_jumbogram_is_malformed() -> None:
    assert parse(ipv6(b"", following=0)).reason == Reason.BAD_IPV6


def test_an_atomic_fragment_is_a_whole_packet() -> None:
    packet = parse(frame(IPv6() / IPv6ExtHdrFragment(offset=0, m=0) / UDP(sport=3, dport=4)))
    assert (packet.fragment, packet.dport) == (Fragment.NONE, 4)


def test_a_later_fragment_of_ipv6_ends_the_parsing() -> None:
    packet = parse(frame(IPv6() / IPv6ExtHdrFragment(offset=100, m=1, nh=60) / b"\1\2\3"))
    assert (packet.reason, packet.fragment, packet.protocol) == (None, Fragment.LATER, 60)
    assert (packet.sport, packet.icmp, packet.tcp_flags) == (None, None, None)


def test_a_second_fragment_header_is_malformed() -> None:
    chain = IPv6ExtHdrFragment(offset=0, m=0) / IPv6ExtHdrFragment(offset=0, m=0)
    assert parse(frame(IPv6() / chain / UDP())).reason == Reason.BAD_EXTENSION


def test_fragments_of_ipv4_are_first_or_later() -> None:
    assert parse(frame(IP(flags="MF") / UDP(len=4000))).fragment == Fragment.FIRST
    later = parse(frame(IP(flags="MF", frag=1, proto=17) / b"x"))
    assert (later.reason, later.fragment, later.protocol, later.sport) == (None, Fragment.LATER, 17, None)


def test_a_ping_of_death_is_malformed() -> None:
    assert parse(ipv4(bytes(3), protocol=1, fragment=0x1FFD)).reason is None
    assert parse(ipv4(bytes(4), protocol=1, fragment=0x1FFD)).reason == Reason.BAD_FRAGMENT
    fragment = b"\x3a\0\xff\xf8" + bytes(4)
    assert parse(ipv6(fragment + bytes(7), following=44)).reason is None
    assert parse(ipv6(fragment + bytes(8), following=44)).reason == Reason.BAD_FRAGMENT


@pytest.mark.parametrize(
    ("protocol", "payload", "reason"),
    [
        (6, TCP_HEADER[:19], Reason.BAD_TCP),
        (6, TCP_HEADER[:12] + b"\x40" + TCP_HEADER[13:], Reason.BAD_TCP),
        (6, TCP_HEADER[:12] + b"\x60" + TCP_HEADER[13:], Reason.BAD_TCP),
        (17, b"\0\1\0\2\0\x08\0", Reason.BAD_UDP),
        (17, b"\0\1\0\2\0\x07\0\0", Reason.BAD_UDP),
        (17, b"\0\1\0\2\0\x09\0\0", Reason.BAD_UDP),
        (17, b"\0\1\0\2\0\x00\0\0", Reason.BAD_UDP),
        (1, b"\x08\0\0", Reason.BAD_ICMP),
        (58, b"\x80\0\0", Reason.BAD_ICMP),
        (132, bytes(11), Reason.BAD_SCTP),
        (47, bytes(3), Reason.BAD_GRE),
    ],
)
def test_a_broken_header_of_layer_4_is_malformed_in_both_versions(
    protocol: int, payload: bytes, reason: Reason
) -> None:
    for packet in (parse(ipv4(payload, protocol)), parse(ipv6(payload, protocol))):
        assert packet.reason == reason
        assert packet.src is not None
        assert packet.sport is None


@pytest.mark.parametrize(("protocol", "shortest"), [(6, 20), (17, 8), (1, 4), (58, 4), (132, 12), (47, 4)])
def test_a_first_fragment_must_hold_the_whole_header(protocol: int, shortest: int) -> None:
    whole = {6: TCP_HEADER, 17: b"\0\1\0\2\xff\xff\0\0"}.get(protocol, bytes(12))[:shortest]
    assert parse(ipv4(whole, protocol, fragment=0x2000)).reason is None
    assert parse(ipv4(whole[:-1], protocol, fragment=0x2000)).reason == Reason.BAD_FRAGMENT


def test_a_first_fragment_within_the_options_of_tcp_is_malformed() -> None:
    options = TCP_HEADER[:12] + b"\x60" + TCP_HEADER[13:]
    assert parse(ipv4(options, 6, fragment=0x2000)).reason == Reason.BAD_FRAGMENT


@pytest.mark.parametrize(
    "broken",
    [
        ipv4(b"", 59)[:33],
        ipv4(b"", 59).replace(b"\x45", b"\x44", 1),
        ipv4(b"", 59).replace(b"\x45", b"\x65", 1),
        ipv4(b"", 59).replace(b"\x45", b"\x46", 1),
        ipv4(b"", 59, length=19),
        ipv4(b"", 59, length=21),
    ],
)
def test_a_broken_ipv4_header_is_malformed(broken: bytes) -> None:
    packet = parse(broken)
    assert (packet.reason, packet.src) == (Reason.BAD_IPV4, None)


@pytest.mark.parametrize(
    "broken", [ipv6(b"", 59)[:53], ipv6(b"xy", 59)[:55], ipv6(b"", 59).replace(b"\x60", b"\x40", 1)]
)
def test_a_broken_ipv6_header_is_malformed(broken: bytes) -> None:
    packet = parse(broken)
    assert (packet.reason, packet.src) == (Reason.BAD_IPV6, None)


def test_ethernet_padding_after_the_packet_belongs_to_the_frame_alone() -> None:
    packet = parse(ipv4(b"\0\1\0\2\0\x08\0\0", 17) + bytes(18))
    assert (packet.reason, packet.length, packet.frame_length) == (None, 28, 60)


def test_a_header_may_not_reach_into_the_padding() -> None:
    assert parse(ipv4(b"\0\1\0\2", 17) + bytes(22)).reason == Reason.BAD_UDP


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("2002:c000:0201::1", "192.0.2.1"),
        ("2002:c000:0201:5:6:7:8:9", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_address_that_embeds_ipv4_becomes_that_address(source: str, expected: str) -> None:
    packet = parse(frame(IPv6(src=source, dst="2001:db8::1") / UDP()))
    assert packet.src is not None
    assert packet.dst is not None
    assert (packet.src.value, packet.src.written, packet.version) == (
        v4(expected),
        int(ip_address(source)),
        6,
    )
    assert (packet.dst.is_ipv4, packet.dst.embedded) == (False, False)


@pytest.mark.parametrize("source", ["::192.0.2.1", "64:ff9b::192.0.2.1", "2001:db8::ffff:192.0.2.1"])
def test_other_addresses_stay_ipv6(source: str) -> None:
    packet = parse(frame(IPv6(src=source, dst="2001:db8::1") / UDP()))
    assert packet.src is not None
    assert (packet.src.value, packet.src.embedded) == (int(ip_address(source)), False)


def test_arp_is_control_and_what_is_not_ip_is_let_be() -> None:
    assert parse(frame(ARP())).reason == Reason.CONTROL
    assert parse(bytes(12) + b"\x08\x06").reason == Reason.CONTROL
    assert parse(bytes(12) + b"\x88\xcc" + bytes(20)).reason == Reason.NOT_IP
    assert parse(bytes(12) + b"\x00\x26" + bytes(40)).reason == Reason.NOT_IP


NS = IPv6(src="fe80::1", dst="ff02::1:ff00:1", hlim=255)


@pytest.mark.parametrize(
    ("layers", "control"),
    [
        (NS / ICMPv6ND_NS(), True),
        (IPv6(hlim=254) / ICMPv6ND_NS(), False),
        (NS / ICMPv6ND_NS(code=1), False),
        (NS / ICMPv6EchoRequest(), False),
        (NS / IPv6ExtHdrDestOpt() / ICMPv6ND_NS(), False),
        (NS / IPv6ExtHdrFragment() / ICMPv6ND_NS(), False),
        (IP(proto=58, ttl=255) / Raw(b"\x87\0\0\0" + bytes(20)), False),
        (IP() / UDP(sport=68, dport=67), True),
        (IP() / UDP(sport=67, dport=68), True),
        (IP() / UDP(sport=67, dport=67), True),
        (IP() / UDP(sport=68, dport=68), False),
        (IP(flags="MF") / UDP(sport=68, dport=67), False),
        (IP() / UDP(sport=546, dport=547), False),
        (IPv6() / UDP(sport=546, dport=547), True),
        (IPv6() / UDP(sport=547, dport=546), True),
        (IPv6() / UDP(sport=547, dport=547), True),
        (IPv6() / UDP(sport=68, dport=67), False),
        (IP() / TCP(sport=68, dport=67), False),
    ],
)
def test_neighbour_discovery_and_dhcp_are_control(layers: object, *, control: bool) -> None:
    assert parse(frame(layers)).control is control


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x08\x00\x45", b"\x86\xdd\x60", b"\x81\0"]))
def test_every_string_of_bytes_is_a_packet_or_malformed(tail: bytes, start: bytes) -> None:
    packet = parse(bytes(12) + start + tail)
    assert packet.reason is not None or packet.src is not None
