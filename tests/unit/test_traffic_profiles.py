# SPDX-License-Identifier: Apache-2.0
"""Packets of the traffic profiles, taken apart again: what they say they are, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    defragment6,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from profiles.amplification import PORTS
from profiles.mixed import beside
from profiles.syn import ODD
from profiles.table import MIXED, PROFILES
from profiles.tag import ASK, FLOOD, REPLY, Tag, find, pack, unpack
from profiles.target import Builder, Made, Target
from sending.run import packets

RUN = 0xC0FFEE00
TO4 = Target(RUN, ip_address("10.9.0.2"), ip_address("10.9.0.1"), "02:00:00:00:00:02", "02:00:00:00:00:01")
TO6 = replace(TO4, src=ip_address("fd09::2"), dst=ip_address("fd09::1"))
ALONE = [name for name in PROFILES if name != MIXED]


def builder(name: str) -> Builder:
    return beside(PROFILES["spoofed"].builder(), 5) if name == MIXED else PROFILES[name].builder()


def targets(name: str) -> list[Target]:
    return [one for one in (TO4, TO6) if PROFILES[name].family in (None, one.dst.version)]


def made(name: str, target: Target, count: int = 42, seed: int = 7) -> list[Made]:
    return list(packets(builder(name), target, seed, count))


def dissected(one: Made) -> list[Any]:
    return [Ether(frame) for frame in one.frames]


def only(name: str, target: Target, count: int = 42) -> list[tuple[Made, Any]]:
    """Packets of one frame each, with what scapy reads in them."""
    return [(one, Ether(one.frames[0])) for one in made(name, target, count)]


@pytest.mark.parametrize("name", PROFILES)
def test_a_seed_gives_the_same_packets_again_and_another_seed_others(name: str) -> None:
    for target in targets(name):
        assert made(name, target) == made(name, target)
        chancy = name not in ("icmp", "ping", "ipv6-extensions", "vlan", "qinq", "legit")
        assert (made(name, target) != made(name, target, seed=8)) is chancy


@pytest.mark.parametrize("name", PROFILES)
def test_every_frame_is_sound_and_goes_from_end_to_end(name: str) -> None:
    for target in targets(name):
        for one in made(name, target):
            for frame, packet in zip(one.frames, dissected(one), strict=True):
                assert len(frame) <= 1514
                assert (packet.src, packet.dst) == (target.src_mac, target.dst_mac)
                inner = packet[IP] if target.dst.version == 4 else packet[IPv6]
                assert ip_address(inner.dst) == target.dst
                fragment = (
                    bool(inner.frag or inner.flags.MF) if IP in packet else IPv6ExtHdrFragment in packet
                )
                if not fragment:
                    assert_checksums(packet)


def assert_checksums(packet: Any) -> None:
    """The checksums in the frame are those that scapy reckons anew."""
    again = packet.copy()
    for layer in (IP, TCP, UDP, ICMP):
        if layer in again:
            del again[layer].chksum
    if ICMPv6EchoRequest in again:
        del again[ICMPv6EchoRequest].cksum
    assert bytes(again) == bytes(packet)


@pytest.mark.parametrize("name", PROFILES)
def test_numbers_run_without_a_gap_and_stand_in_the_packets(name: str) -> None:
    for target in targets(name):
        whole = made(name, target)
        assert [one.seq for one in whole] == list(range(42))
        for one in whole:
            data = b"".join(one.frames)
            tcp = next((packet[TCP] for packet in dissected(one) if TCP in packet), None)
            if tcp is not None and len(one.frames) == 1:
                assert (tcp.seq - RUN) & 0xFFFFFFFF == one.seq
            elif not one.kind.startswith("tiny"):
                assert find(data, ASK if one.asks else FLOOD, RUN) == one.seq


def test_a_syn_flood_is_of_syns_alone_from_many_ports() -> None:
    flood = only("syn-flood", TO4, 200)
    assert {(str(packet[TCP].flags), packet[TCP].dport) for _, packet in flood} == {("S", 80)}
    assert len({packet[TCP].sport for _, packet in flood}) > 150
    assert all(one.asks for one, _ in flood)


def test_tcp_flags_are_those_of_their_kind() -> None:
    for one, packet in only("tcp-flags", TO6):
        assert set(str(packet[TCP].flags)) == set(ODD[one.kind])


def test_amplification_comes_from_the_services_ports_in_turn_and_is_large() -> None:
    flood = only("udp-amplification", TO4, 70)
    assert Counter(packet[UDP].sport for _, packet in flood) == dict.fromkeys(PORTS.values(), 10)
    assert all(one.kind == {v: k for k, v in PORTS.items()}[packet[UDP].sport] for one, packet in flood)
    assert all(len(packet) >= 400 for _, packet in flood)
    assert not any(one.asks for one, _ in flood)


def test_icmp_has_the_types_of_its_family() -> None:
    assert Counter(packet[ICMP].type for _, packet in only("icmp", TO4)) == {8: 14, 13: 14, 3: 14}
    assert Counter(bytes(packet[IPv6].payload)[0] for _, packet in only("icmp", TO6)) == {
        128: 14,
        3: 14,
        1: 14,
    }
    assert {one.asks for one, _ in only("ping", TO4)} == {True}


@pytest.mark.parametrize("target", [TO4, TO6], ids=["v4", "v6"])
def test_whole_fragments_put_together_are_a_datagram_with_the_right_checksum(target: Target) -> None:
    for one in made("fragments", target):
        if not one.kind.startswith("frag"):
            continue
        assert len(one.frames) == 3
        if target.dst.version == 4:
            (packet,) = defragment([packet[IP] for packet in dissected(one)])
            packet = IP(bytes(packet))
        else:
            packet = IPv6(bytes(defragment6([packet[IPv6] for packet in dissected(one)])))
        tag = unpack(bytes(packet[UDP].payload))
        assert tag == Tag(ASK, RUN, one.seq, one.kind)
        assert_checksums(packet)


def offsets(packet: Any) -> tuple[int, int, bool]:
    """(first byte, byte after the last, whether more follow) of a fragment."""
    if IP in packet:
        size = packet[IP].len - 20
        return packet[IP].frag * 8, packet[IP].frag * 8 + size, bool(packet[IP].flags.MF)
    part = packet[IPv6ExtHdrFragment]
    size = packet[IPv6].plen - 8
    return part.offset * 8, part.offset * 8 + size, bool(part.m)


@pytest.mark.parametrize("target", [TO4, TO6], ids=["v4", "v6"])
def test_tiny_fragments_cut_the_tcp_header_and_overlapping_ones_overlap(target: Target) -> None:
    for one in made("fragments", target):
        spans = [offsets(packet) for packet in dissected(one)]
        assert [more for _, _, more in spans] == [True] * (len(spans) - 1) + [False]
        steps = [spans[at + 1][0] - spans[at][1] for at in range(len(spans) - 1)]
        if one.kind.startswith("tiny"):
            assert spans[0][:2] == (0, 8)
        assert steps == {"tiny": [0], "frag": [0, 0], "over": [-8, 0]}[one.kind[:4]]
        assert one.asks is one.kind.startswith("frag")


def test_extension_headers_are_those_of_their_kind() -> None:
    wanted = {
        "hopbyhop": {IPv6ExtHdrHopByHop},
        "destopt": {IPv6ExtHdrDestOpt},
        "routing": {IPv6ExtHdrRouting},
        "chain": {IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, IPv6ExtHdrDestOpt},
    }
    for one, packet in only("ipv6-extensions", TO6):
        found = {kind for kind in wanted["chain"] if kind in packet}
        assert (found, UDP in packet) == (wanted[one.kind], True)


def test_tags_of_vlans_are_those_asked_for() -> None:
    target = replace(TO4, vlan=12, outer_vlan=300)
    for _, packet in only("vlan", target):
        assert (packet.type, packet[Dot1Q].vlan, packet[Dot1Q].type) == (0x8100, 12, 0x0800)
    for _, packet in only("qinq", target):
        outer, inner = packet[Dot1AD], packet[Dot1Q]
        assert (packet.type, outer.vlan, outer.type, inner.vlan) == (0x88A8, 300, 0x8100, 12)


@pytest.mark.parametrize(
    ("target", "prefix"), [(TO4, "198.18.0.0/15"), (TO6, "2001:db8::/32"), (TO4, "10.20.0.0/24")]
)
def test_spoofed_sources_are_many_of_the_prefix_and_ask_for_nothing(target: Target, prefix: str) -> None:
    network = ip_network(prefix)
    given = target if prefix.startswith(("198", "2001")) else replace(target, sources=network)
    flood = only("spoofed", given, 200)
    sources = {ip_address(packet[IP if IP in packet else IPv6].src) for _, packet in flood}
    assert all(source in network for source in sources)
    assert len(sources) > 100
    assert not any(one.asks for one, _ in flood)


def test_random_sources_ask_for_no_answers_in_any_profile_but_users() -> None:
    target = replace(TO4, sources=ip_network("10.20.0.0/16"))
    for name in ("syn-flood", "icmp", "ping", "fragments"):
        assert not any(one.asks for one in made(name, target))
    assert all(one.asks for one in made("legit", target))
    assert {packet[IP].src for _, packet in only("legit", target)} == {"10.9.0.2"}


def test_requests_are_among_users_packets_only_where_there_is_a_server() -> None:
    assert Counter(one.kind for one in made("legit", TO4)) == {"udp": 21, "echo4": 21}
    with_web = made("legit", replace(TO6, http_port=8080))
    assert Counter(one.kind for one in with_web) == {"udp": 14, "echo6": 14, "http": 14}
    assert all(bool(one.frames) is (one.kind != "http") for one in with_web)


def test_mixed_is_one_users_packet_in_so_many_and_all_its_kinds_come_up() -> None:
    whole = made(MIXED, TO4, 100)
    assert Counter(one.kind for one in whole) == {"spoofed": 80, "udp": 10, "echo4": 10}
    assert [one.asks for one in whole] == [at % 5 == 0 for at in range(100)]


def test_dscp_and_length_are_those_asked_for() -> None:
    for target in (TO4, TO6):
        for _, packet in only("vlan", replace(target, dscp=46, length=333)):
            assert (packet[IP].tos if IP in packet else packet[IPv6].tc) == 46 << 2
            assert len(packet[UDP].payload) == 333


def test_every_builder_takes_any_number() -> None:
    for name in ALONE:
        for target in targets(name):
            assert builder(name)(target, Random(1), 0x10001, 5).frames


def test_a_mark_is_read_as_it_was_written_and_nothing_else_is_taken_for_one() -> None:
    tag = Tag(REPLY, 1, 2, "memcached")
    assert unpack(pack(tag) + b"more") == tag
    for bad in (b"", pack(tag)[:-1], b"Nope" + pack(tag)[4:], pack(tag)[:12] + bytes(12)):
        assert unpack(bad) is None
    assert unpack(pack(tag)[:12] + b"\xff\n" + bytes(10)) is None
    assert find(b"x" * 60 + pack(tag), REPLY, 1) == 2
    assert find(b"x" * 60 + pack(tag), REPLY, 2) is None
    assert find(b"x" * 60 + pack(tag)[:-1], REPLY, 1) is None
