# SPDX-License-Identifier: Apache-2.0
"""The compiled arrays, read as the packet program reads them, say what the matches say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from valkyrie.control import abi
from valkyrie.control.abi import Dimension
from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Desired, Limit
from valkyrie.control.match import Match, parse_match
from valkyrie.control.prefix import Prefix, parse_prefix
from valkyrie.control.ruleset.compile import (
    CompileCache,
    CompiledRuleset,
    RulesetSettings,
    SlotUid,
    compile_ruleset,
)
from valkyrie.control.ruleset.fields import PLACE
from valkyrie.control.ruleset.tree import lookup
from valkyrie.control.words import WITH_PORTS

NIC_SLOTS = {"eth0": 1, "eth1": 2}


@dataclass(frozen=True)
class Packet:
    """What the parser hands to classification. A later fragment has neither ports, flags nor type."""

    src: Prefix
    dst: Prefix
    protocol: int
    fragment: int
    sport: int
    dport: int
    flags: int
    icmp: int
    vlan: int
    dscp: int
    length: int
    nic: int


def compile_limits(limits: list[Limit], cache: CompileCache | None = None, **more: Any) -> CompiledRuleset:
    return compile_ruleset(
        more.pop("desired", None) or Desired.of(limits),
        slots={limit.name: SlotUid(number, number + 1) for number, limit in enumerate(limits)},
        nic_slots=more.pop("nic_slots", NIC_SLOTS),
        cpus=2,
        settings=RulesetSettings(**more),
        serial=1,
        mono_now_ns=0,
        wall_now_ns=0,
        cache=cache,
    )


def words_of(address: Prefix) -> tuple[int, int]:
    value = int.from_bytes(address.packed, "big")
    return (value, 0) if address.version == 4 else divmod(value, 1 << 64)


def matched(ruleset: CompiledRuleset, packet: Packet) -> set[str]:
    """The limits whose bits survive the AND of all dimensions in use."""
    header = ruleset.header
    kept = (1 << int(header["limits"])) - 1
    fields = ruleset.fields["class_of"].reshape(-1)
    values = {
        Dimension.PROTOCOL: packet.protocol,
        Dimension.FRAGMENT: packet.fragment,
        Dimension.DSCP: packet.dscp,
        Dimension.VERSION: int(packet.src.version == 6),
        Dimension.TCP_FLAGS: packet.flags,
        Dimension.ICMP: packet.icmp,
        Dimension.VLAN: packet.vlan,
        Dimension.INTERFACE: packet.nic,
        Dimension.LENGTH: packet.length,
        Dimension.SPORT: packet.sport,
        Dimension.DPORT: packet.dport,
    }
    for dimension in Dimension:
        if not int(header["dimensions"]) >> dimension & 1:
            continue
        if dimension in values:
            number = int(fields[PLACE[dimension][0] + values[dimension]])
        else:
            address = packet.src if dimension is Dimension.SRC else packet.dst
            root = int(header[f"{dimension.name.lower()}{address.version}_root"])
            number = lookup(ruleset.nodes, root, *words_of(address))
        kept &= sum(int(word) << 64 * i for i, word in enumerate(ruleset.classes["word"][number]))
    return {name for position, name in enumerate(ruleset.order) if kept >> position & 1}


def inside(spans: tuple[tuple[int, int], ...], value: int) -> bool:
    return any(low <= value <= high for low, high in spans)


def covers(prefixes: tuple[Prefix, ...], address: Prefix) -> bool:
    bits = len(address.packed) * 8
    value = int.from_bytes(address.packed, "big")
    return any(
        prefix.version == address.version
        and value >> (bits - prefix.length) == int.from_bytes(prefix.packed, "big") >> (bits - prefix.length)
        for prefix in prefixes
    )


def says(match: Match, packet: Packet) -> bool:
    """What the grammar means, said once more without tables."""
    later = packet.fragment == abi.Fragment.LATER
    asks = bool(match.sport or match.dport or match.tcp_flags or match.icmp_type)
    if match.fragments == "only" and packet.fragment == abi.Fragment.NONE:
        return False
    if match.fragments == "never" and packet.fragment != abi.Fragment.NONE:
        return False
    if asks and later:
        could = not (match.sport or match.dport) or packet.protocol in WITH_PORTS
        layer4 = match.fragments in ("match", "only") and could
    else:
        types = {*match.icmp_types(1), *(256 + number for number in match.icmp_types(58))}
        layer4 = (
            (not match.sport or inside(match.sport, packet.sport))
            and (not match.dport or inside(match.dport, packet.dport))
            and (match.tcp_flags is None or packet.flags & (match.tcp_flags[1] | 256) == match.tcp_flags[0])
            and (not match.icmp_type or packet.icmp in types)
        )
    return (
        layer4
        and (not match.src or covers(match.src, packet.src))
        and (not match.dst or covers(match.dst, packet.dst))
        and (not match.proto or packet.protocol in match.proto)
        and (not (match.vlan or match.untagged)
             or (match.untagged and packet.vlan in (abi.NO_VLAN, 0)) or inside(match.vlan, packet.vlan))
        and (not match.dscp or inside(match.dscp, packet.dscp))
        and (not match.length or inside(match.length, packet.length))
        and (not match.iface or packet.nic in [NIC_SLOTS.get(name) for name in match.iface])
        and match.ip in (None, packet.src.version)
    )  # fmt: skip


WORDS = {
    "src": ["10.0.0.0/8", "10.1.0.0/16,2001:db8::/32", "2001:db8:0:1::/64", "::/0", "2001:db8::1,10.1.1.1"],
    "dst": ["0.0.0.0/0", "10.0.0.0/7,2001:db8::/127", "2001:db8::1"],
    "layer4": [
        "proto tcp", "proto udp,tcp", "proto icmp", "proto gre,200", "dport 80", "dport 1-1023,8080 sport 53",
        "proto udp sport 0", "dport 65535", "syn", "tcp-flags NONE/SYN,ACK", "tcp-flags RST dport 80",
        "icmp-type echo-request", "proto icmp6 icmp-type 8,packet-too-big",
    ],
    "vlan": ["10", "none", "0-100,none", "4095"],
    "dscp": ["ef", "0-7"],
    "length": ["0-128", "1500,65535"],
    "fragments": ["match", "only", "never"],
    "iface": ["eth0", "eth1,eth9", "eth9"],
    "ip": ["4", "6"],
}  # fmt: skip


@st.composite
def match_texts(draw: st.DrawFn) -> str:
    parts = []
    for word, values in WORDS.items():
        if draw(st.integers(0, 3)) == 0:
            value = draw(st.sampled_from(values))
            parts.append(value if word == "layer4" else f"{word} {value}")
    return " ".join(parts)


def is_possible(text: str) -> bool:
    try:
        parse_match(text)
    except InvalidInput:
        return False
    return True


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    texts = draw(st.sampled_from([
        ("10.1.1.1", "10.0.0.1", "11.0.0.0", "255.255.255.255", "0.0.0.0"),
        ("2001:db8::1", "2001:db8:0:1::", "2001:db8::", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ]))  # fmt: skip
    src, dst = (parse_prefix(draw(st.sampled_from(texts))) for _ in range(2))
    protocol = draw(st.sampled_from([1, 6, 17, 47, 58, 132, 200]))
    fragment = draw(st.sampled_from(abi.Fragment))
    later = fragment == abi.Fragment.LATER
    ports = st.sampled_from([0, 53, 80, 1023, 1024, 65535])
    sport, dport = (draw(ports) if protocol in WITH_PORTS else abi.NO_PORTS for _ in range(2))
    kind = draw(st.sampled_from([0, 8, 128, 2]))
    return Packet(
        src, dst, protocol, fragment,
        sport=abi.LATER_FRAGMENT if later else sport,
        dport=abi.LATER_FRAGMENT if later else dport,
        flags=draw(st.integers(0, 255)) if protocol == 6 and not later else abi.NO_TCP_FLAGS,
        icmp=kind + 256 * (protocol == 58) if protocol in (1, 58) and not later else abi.NO_ICMP,
        vlan=draw(st.sampled_from([abi.NO_VLAN, 0, 10, 4095])),
        dscp=draw(st.sampled_from([0, 7, 46, 63])),
        length=draw(st.sampled_from([20, 128, 129, 1500, 65535])),
        nic=draw(st.sampled_from([0, 1, 2])),
    )  # fmt: skip


@settings(max_examples=150)
@given(
    st.lists(match_texts().filter(is_possible), min_size=1, max_size=8),
    st.lists(packets(), min_size=1, max_size=20),
)
def test_a_packet_matches_the_limits_that_say_so(texts: list[str], sent: list[Packet]) -> None:
    limits = [Limit(name=f"l{number}", match=text, rate="1/s") for number, text in enumerate(texts)]
    ruleset = compile_limits(limits)
    for packet in sent:
        assert matched(ruleset, packet) == {limit.name for limit in limits if says(limit.matcher, packet)}


@settings(max_examples=50)
@given(st.lists(st.lists(match_texts().filter(is_possible), max_size=5), min_size=2, max_size=5), packets())
def test_a_cache_changes_nothing_but_time(policies: list[list[str]], packet: Packet) -> None:
    cache = CompileCache()
    for texts in policies:
        limits = [Limit(name=f"l{len(text) % 7}{n}", match=text, rate="1/s") for n, text in enumerate(texts)]
        kept, fresh = compile_limits(limits, cache), compile_limits(limits)
        assert matched(kept, packet) == matched(fresh, packet)
        for name in ("header", "limits", "plans", "nodes", "classes", "fields", "guards"):
            assert getattr(kept, name).tobytes() == getattr(fresh, name).tobytes(), name


def sent(protocol: int, fragment: abi.Fragment, **more: int) -> Packet:
    """A packet of which all that is not told is as of a later fragment."""
    address = parse_prefix("10.1.1.1")
    fields = {"sport": abi.LATER_FRAGMENT, "dport": abi.LATER_FRAGMENT, "flags": abi.NO_TCP_FLAGS}
    fields |= {"icmp": abi.NO_ICMP, "vlan": abi.NO_VLAN, "dscp": 0, "length": 100, "nic": 0}
    return Packet(address, address, protocol, int(fragment), **(fields | more))


def test_later_fragments_satisfy_port_limits_only_of_protocols_with_ports() -> None:
    ruleset = compile_limits([Limit(name="a", match="dport 53 fragments match", rate="1/s")])
    found = {
        protocol: matched(ruleset, sent(protocol, abi.Fragment.LATER)) for protocol in (1, 6, 17, 132, 200)
    }
    assert found == {1: set(), 6: {"a"}, 17: {"a"}, 132: {"a"}, 200: set()}
    skipping = compile_limits([Limit(name="a", match="proto udp dport 53", rate="1/s")])
    assert matched(skipping, sent(17, abi.Fragment.LATER)) == set()
    assert matched(skipping, sent(17, abi.Fragment.FIRST, dport=53)) == {"a"}


def test_an_interface_is_matched_once_its_nic_has_a_slot() -> None:
    limits = [Limit(name="a", match="iface eth7", rate="1/s")]
    cache = CompileCache()
    packet = sent(17, abi.Fragment.NONE, nic=5)
    assert matched(compile_limits(limits, cache, nic_slots={}), packet) == set()
    assert matched(compile_limits(limits, cache, nic_slots={"eth7": 5}), packet) == {"a"}
    assert matched(compile_limits(limits, cache, nic_slots={"eth7": 6}), packet) == set()


def test_all_256_positions_have_their_own_bit() -> None:
    limits = [Limit(name=f"l{n:03}", match=f"dport {n}", rate="1/s") for n in range(256)]
    ruleset = compile_limits(limits)
    fields = ruleset.fields["class_of"].reshape(-1)
    for n in (0, 63, 64, 128, 255):
        row = ruleset.classes["word"][fields[abi.FIELD_DPORT + n]]
        assert [int(word) for word in row] == [1 << n % 64 if word == n // 64 else 0 for word in range(4)]
    assert int(ruleset.header["limits"]) == 256


def test_only_constrained_dimensions_are_looked_up() -> None:
    assert int(compile_limits([Limit(name="a", rate="1/s")]).header["dimensions"]) == 0
    both = [Limit(name="a", match="syn", rate="1/s"), Limit(name="b", match="src 10.0.0.0/8", rate="1/s")]
    used = {Dimension.PROTOCOL, Dimension.TCP_FLAGS, Dimension.SRC}
    assert int(compile_limits(both).header["dimensions"]) == sum(1 << dimension for dimension in used)


def test_nothing_at_all_compiles() -> None:
    ruleset = compile_limits([])
    assert [len(part) for part in (ruleset.limits, ruleset.classes, ruleset.plans, ruleset.nodes)] == [
        0,
        0,
        1,
        1,
    ]
    for name in ("src4_root", "dst6_root", "guard4_root", "guard6_root"):
        assert int(ruleset.header[name]) == abi.REF_LEAF
    assert np.frombuffer(ruleset.guards.tobytes(), np.uint64).tolist() == [0, 0, 0]
