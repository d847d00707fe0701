# SPDX-License-Identifier: Apache-2.0
"""Every word of a match, every key and every action, on packets that scapy makes and a NIC carries: which
of them come out behind XDP, and what the daemon counts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import GRE, Dot1AD, Dot1Q
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from support.appliance import Appliance
from support.frames_way import FramesWay
from support.netns import veth_pair

FOUR = IP(src="198.51.100.7", dst="10.9.0.1")
SIX = IPv6(src="2001:db8:5::7", dst="2001:db8:9::1")
UDP_ = UDP(sport=1000, dport=53) / b"x"
TCP_ = TCP(sport=1000, dport=443, flags="S")
WIDE = {"key": "global", "rate": "1/h", "burst": "1"}


def both(upper: Packet) -> list[Packet]:
    return [FOUR / upper, SIX / upper]


def later(upper: Packet) -> list[Packet]:
    """A second fragment of either version; its bytes look like ports."""
    data = Raw(bytes(upper))
    protocol = {UDP: 17, TCP: 6}[type(upper)]
    return [
        IP(src=FOUR.src, dst=FOUR.dst, proto=protocol, frag=100) / data,
        SIX / IPv6ExtHdrFragment(offset=100, nh=protocol) / data,
    ]


def first(upper: Packet) -> list[Packet]:
    return [IP(src=FOUR.src, dst=FOUR.dst, flags="MF") / upper, SIX / IPv6ExtHdrFragment(m=1) / upper]


# A match, packets that it is about, and packets that it is not about.
MATCHES: list[tuple[str, list[Packet], list[Packet]]] = [
    ("", [*both(UDP_), *both(TCP_)], []),
    ("src 198.51.100.0/24,2001:db8:5::/48", both(UDP_), [IP(src="198.51.101.7") / UDP_]),
    ("src 2001:db8::/32", [SIX / UDP_], [FOUR / UDP_, IPv6(src="2001:db9::1", dst=SIX.dst) / UDP_]),
    ("src ::/0", [SIX / UDP_, IPv6(src="2002:c633:6407::1", dst=SIX.dst) / UDP_], [FOUR / UDP_]),
    ("src 198.51.100.7", [FOUR / UDP_, IPv6(src="2002:c633:6407::1", dst=SIX.dst) / UDP_], [SIX / UDP_]),
    ("dst 10.9.0.1,2001:db8:9::1", both(UDP_), [IP(src=FOUR.src, dst="10.9.0.99") / UDP_]),
    ("proto udp", both(UDP_), both(TCP_)),
    ("proto tcp", both(TCP_), both(UDP_)),
    ("proto icmp", [FOUR / ICMP()], [SIX / ICMPv6EchoRequest(), *both(UDP_)]),
    # From this source: the sender's kernel reports its multicast groups by ICMPv6 as well.
    (f"proto icmp6 src {SIX.src}", [SIX / ICMPv6EchoRequest()], [FOUR / ICMP()]),
    ("proto gre", both(GRE()), both(UDP_)),
    ("proto esp", both(ESP(spi=1, seq=1) / b"12345678"), both(UDP_)),
    ("proto ah", [FOUR / AH(nh=17, icv=bytes(12)) / UDP_], both(UDP_)),
    ("proto sctp", both(SCTP(sport=5, dport=6)), both(UDP_)),
    ("proto 253", [IP(src=FOUR.src, dst=FOUR.dst, proto=253) / b"x"], both(UDP_)),
    (
        "proto udp",
        [SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP_, IP(options=[IPOption_NOP()] * 4) / UDP_],
        [SIX / IPv6ExtHdrDestOpt() / TCP_],
    ),
    ("sport 1000", [*both(UDP_), *both(TCP_)], both(UDP(sport=1001, dport=53))),
    ("dport 50-60,443", [*both(UDP_), *both(TCP_), FOUR / SCTP(sport=1, dport=50)], both(UDP(dport=61))),
    ("syn", both(TCP_), [*both(TCP(dport=443, flags="SA")), *both(UDP_)]),
    ("tcp-flags RST", both(TCP(flags="RA")), both(TCP_)),
    ("tcp-flags NONE/SYN,ACK,FIN", both(TCP(flags="P")), both(TCP_)),
    ("icmp-type echo-request", [FOUR / ICMP(), SIX / ICMPv6EchoRequest()], [FOUR / ICMP(type=0)]),
    ("length 0-60", both(UDP_), both(UDP() / bytes(100))),
    ("length 100-65535", both(UDP() / bytes(100)), both(UDP_)),
    ("dscp ef,af11", [IP(tos=46 << 2) / UDP_, IPv6(tc=10 << 2, dst=SIX.dst) / UDP_], both(UDP_)),
    ("ip 4", [FOUR / UDP_], [SIX / UDP_]),
    ("ip 6", [SIX / UDP_, IPv6(src="2002:c633:6407::1", dst=SIX.dst) / UDP_], [FOUR / UDP_]),
    ("vlan 10", [Dot1Q(vlan=10) / FOUR / UDP_, Dot1AD(vlan=10) / Dot1Q(vlan=20) / SIX / UDP_], both(UDP_)),
    ("vlan 10", [Dot1Q(vlan=0, prio=5) / Dot1Q(vlan=10) / FOUR / UDP_], [Dot1Q(vlan=11) / FOUR / UDP_]),
    ("vlan none", [*both(UDP_), Dot1Q(vlan=0, prio=5) / FOUR / UDP_], [Dot1Q(vlan=10) / FOUR / UDP_]),
    ("iface nic0", both(UDP_), []),
    ("iface nic7", [], both(UDP_)),
    ("dport 53", [*both(UDP_), *first(UDP_)], later(UDP_)),
    ("dport 53 fragments match", [*both(UDP_), *first(UDP_), *later(UDP_)], both(TCP_)),
    ("dport 53 fragments only", [*first(UDP_), *later(UDP_)], both(UDP_)),
    ("dport 53 fragments never", both(UDP_), [*first(UDP_), *later(UDP_)]),
    ("fragments only", [*first(TCP_), *later(TCP_)], [*both(UDP_), *both(TCP_)]),
    ("proto udp", [*first(UDP_), *later(UDP_)], [*later(TCP_), *both(TCP_)]),
]

OTHER = UDP(sport=2000, dport=53) / b"x"
# A key, packets that share a bucket, and one that has another.
KEYS: list[tuple[str, list[Packet], Packet | None]] = [
    ("global", [*both(UDP_), *both(TCP_)], None),
    ("src", [FOUR / UDP_, FOUR / TCP_], IP(src="198.51.100.8", dst=FOUR.dst) / UDP_),
    ("src", [SIX / UDP_, IPv6(src="2001:db8:5::8", dst=SIX.dst) / UDP_], IPv6(src="2001:db8:5:1::7") / UDP_),
    ("src", [FOUR / UDP_, IPv6(src="2002:c633:6407::1", dst=SIX.dst) / UDP_], SIX / UDP_),
    ("src/24", [FOUR / UDP_, IP(src="198.51.100.8") / UDP_], IP(src="198.51.101.7") / UDP_),
    ("src6/48", [SIX / UDP_, IPv6(src="2001:db8:5:1::7") / UDP_], IPv6(src="2001:db8:6::7") / UDP_),
    ("dst", [FOUR / UDP_, IP(src="9.9.9.9", dst=FOUR.dst) / UDP_], IP(dst="10.9.0.2") / UDP_),
    ("dst", [SIX / UDP_, IPv6(src="2001:db8::9", dst=SIX.dst) / UDP_], IPv6(dst="2001:db8:9::2") / UDP_),
    ("dst/24", [FOUR / UDP_, IP(dst="10.9.0.2") / UDP_], IP(dst="10.9.1.1") / UDP_),
    ("dst6/64", [SIX / UDP_, IPv6(dst="2001:db8:9::2") / UDP_], IPv6(dst="2001:db8:8::1") / UDP_),
    ("sport", [*both(UDP_), *both(TCP_)], FOUR / OTHER),
    ("dport", [*both(UDP_), *both(OTHER)], FOUR / TCP_),
    ("src+dport", [FOUR / UDP_, FOUR / OTHER], FOUR / TCP_),
    ("src+dport", [SIX / UDP_, SIX / OTHER], SIX / TCP_),
    ("src+dst", [FOUR / UDP_, FOUR / TCP_], IP(src=FOUR.src, dst="10.9.0.2") / UDP_),
    ("src+dst", [SIX / UDP_, SIX / TCP_], IPv6(src=SIX.src, dst="2001:db8:9::2") / UDP_),
    ("flow", [FOUR / UDP_, FOUR / UDP_], FOUR / OTHER),
    ("flow", [SIX / UDP_, SIX / UDP_], SIX / OTHER),
]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Iterator[Appliance]:
    """The daemon, policing nic0; one for the whole file."""
    folder = tmp_path_factory.mktemp("packets")
    (folder / "state").mkdir()
    shutil.copy(built / "build.json", folder / "state")
    with veth_pair() as (inside, outside):
        made = Appliance(folder, built / "bpf", inside, outside)
        try:
            made.start()
            made.done("POST", "/v1/nics/nic0/attach", {"mode": "native"})
            yield made
            made.done("DELETE", "/v1/nics/nic0")
        finally:
            made.close()


@pytest.fixture
def way(appliance: Appliance) -> Iterator[FramesWay]:
    appliance.done("POST", "/v1/apply", {"document": {}})
    made = FramesWay(appliance.inside, appliance.outside)
    yield made
    made.close()


def counters(appliance: Appliance) -> dict[str, int]:
    counted: dict[str, int] = appliance.done("GET", "/v1/limits/one")["counters"]
    return {name: counted[name] for name in ("matched", "passed", "dropped", "shadow_dropped")}


def named(value: Any) -> str | None:
    return value.replace(" ", "-") or "everything" if isinstance(value, str) else None


@pytest.mark.parametrize(("match", "hits", "misses"), MATCHES, ids=named)
def test_a_match_holds_for_what_it_says(
    appliance: Appliance, way: FramesWay, match: str, hits: list[Packet], misses: list[Packet]
) -> None:
    appliance.done("PUT", "/v1/limits/one", {**WIDE, "match": match})
    sent = [*hits, *misses, *hits]
    lucky = [0] if hits else []
    assert way.passed(sent) == lucky + list(range(len(hits), len(hits) + len(misses)))
    matched = 2 * len(hits)
    assert counters(appliance) == {
        "matched": matched, "passed": len(lucky), "dropped": matched - len(lucky), "shadow_dropped": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("key", "together", "apart"), KEYS, ids=named)
def test_a_key_gives_a_bucket_to_each(
    appliance: Appliance, way: FramesWay, key: str, together: list[Packet], apart: Packet | None
) -> None:
    appliance.done("PUT", "/v1/limits/one", {**WIDE, "key": key})
    others = [] if apart is None else [apart, apart]
    assert way.passed([*together, *others]) == [0] + [len(together)] * bool(others)


@pytest.mark.parametrize("packet", both(UDP_), ids=["ip4", "ip6"])
def test_a_shadow_drops_nothing_and_counts_what_it_would(
    appliance: Appliance, way: FramesWay, packet: Packet
) -> None:
    appliance.done("PUT", "/v1/limits/one", {**WIDE, "action": "shadow"})
    assert way.passed([packet] * 5) == list(range(5))
    assert counters(appliance) == {"matched": 5, "passed": 5, "dropped": 0, "shadow_dropped": 4}


@pytest.mark.parametrize(
    ("packet", "other", "prefix"),
    [
        (FOUR / UDP_, IP(src="198.51.100.8", dst=FOUR.dst) / UDP_, "198.51.100.7/32"),
        (SIX / UDP_, IPv6(src="2001:db8:6::7", dst=SIX.dst) / UDP_, "2001:db8:5::/64"),
    ],
    ids=["ip4", "ip6"],
)
def test_a_ban_shuts_out_all_of_the_source_that_exceeded_and_can_be_lifted(
    appliance: Appliance, way: FramesWay, packet: Packet, other: Packet, prefix: str
) -> None:
    ban = {"match": "proto udp", "key": "src", "rate": "1/h", "burst": "2", "action": "ban", "ban_for": "1h"}
    appliance.done("PUT", "/v1/limits/one", ban)
    tcp = packet.copy()
    tcp.payload = TCP_
    assert way.passed([packet, tcp, packet, packet, tcp, other]) == [0, 1, 2, 5]
    (listed,) = appliance.done("GET", "/v1/ban")["ban"]
    assert (listed["prefix"], listed["by"]) == (prefix, "limit")
    appliance.done("DELETE", f"/v1/ban?prefix={prefix}")
    assert way.passed([tcp]) == [0]


@pytest.mark.parametrize("packet", both(UDP_), ids=["ip4", "ip6"])
def test_a_ban_by_hand_an_exemption_and_a_protection_in_their_order(
    appliance: Appliance, way: FramesWay, packet: Packet
) -> None:
    source = packet.src
    appliance.done("PUT", "/v1/limits/one", WIDE)
    appliance.done("PUT", "/v1/ban", {"prefix": source})
    assert way.passed([packet] * 2) == []
    appliance.done("PUT", "/v1/exempt", {"prefix": source})
    assert way.passed([packet] * 3) == [0, 1, 2]
    appliance.done("DELETE", f"/v1/exempt?prefix={source}")
    appliance.done("POST", "/v1/nics/nic0/attach", {"protect": [source]})
    assert way.passed([packet] * 3) == [0, 1, 2]
    appliance.done("POST", "/v1/nics/nic0/attach", {"protect": []})
    appliance.done("DELETE", f"/v1/ban?prefix={source}")
    assert way.passed([packet] * 3) == [0]


@pytest.mark.parametrize(
    ("packet", "prefix"), [(FOUR / UDP_, "198.51.100.0/24"), (SIX / UDP_, "2001:db8:5::/48")]
)
def test_an_override_gives_its_prefix_another_burst(
    appliance: Appliance, way: FramesWay, packet: Packet, prefix: str
) -> None:
    appliance.done("PUT", "/v1/limits/one", {**WIDE, "key": "src"})
    entry = {"prefix": prefix, "rate": "1/h", "burst": "3"}
    appliance.done("PUT", "/v1/limits/one/overrides", {"overrides": [entry]})
    assert way.passed([packet] * 5) == [0, 1, 2]


@pytest.mark.parametrize(("measure", "beside"), [("ip", 0), ("frame", 14)])
def test_bytes_are_those_of_the_packet_or_of_the_frame(
    appliance: Appliance, way: FramesWay, measure: str, beside: int
) -> None:
    size = 1000
    fits = {"key": "src", "rate": "32bit/h", "burst": f"{3 * (size + beside)}B", "measure": measure}
    appliance.done("PUT", "/v1/limits/one", fits)
    four = FOUR / UDP() / bytes(size - 28)
    six = SIX / UDP() / bytes(size - 48)
    assert way.passed([four] * 4 + [six] * 4) == [0, 1, 2, 4, 5, 6]
