# SPDX-License-Identifier: Apache-2.0
"""Limits of every kind against the profiles of vm/traffic.py, counted on both ends and by the kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.lab import Lab
from support.sender import Sender, serving
from support.whole import Whole, until

NIC = "data4"
QUEUES = 4
COUNT = 210  # a multiple of all profiles' kinds
QUICK = pytest.mark.quick
UDP = "proto udp dport 7007"
AMPLIFIERS = ("dns", "ntp", "snmp", "cldap", "ssdp", "chargen", "memcached")
RANGED = ("ntp", "snmp", "cldap", "memcached")
CHAINS = ("hopbyhop", "destopt", "routing", "chain")
# So that the appliance hears tagged packets, and senders whom it would not answer this way.
HEARING = """
set -e
ip link add link {nic} name tagged type vlan id 10
ip link add link {nic} name outer type vlan protocol 802.1ad id 100
ip link add link outer name inner type vlan id 10
for name in tagged outer inner; do ip link set "$name" up; done
for name in all {nic} tagged inner; do sysctl -q -w "net.ipv4.conf.$name.rp_filter=0"; done
"""
DEAF = "ip link delete tagged; ip link delete inner; ip link delete outer"


@dataclass(frozen=True)
class Case:
    """A limit of `burst` packets a key, and traffic that has `keys` keys in the kinds that it matches.

    `answered`: what came through shows as answers to the client, and not as datagrams that arrive.
    """

    match: str
    profile: str
    kinds: tuple[str, ...]
    key: str = "src"
    words: tuple[str, ...] = ()
    keys: int = 1
    burst: int = 5
    version: int = 4
    answered: bool = False
    limit: Mapping[str, str] = field(default_factory=dict)

    def body(self, to: str) -> dict[str, str]:
        plain = {"match": self.match.format(to=to), "key": self.key, "rate": "1/h", "burst": str(self.burst)}
        return {**plain, **self.limit}


def sources(prefix: str) -> tuple[str, ...]:
    return ("--from", prefix)


SPOOFED = ("spoofed",)
BYTES = {"rate": "32bit/h", "burst": "20000B"}
FRAMES = {**BYTES, "measure": "frame"}
SHADOW = {"action": "shadow"}
BAN = {"action": "ban", "ban_for": "10s"}
LONG = ("--length", "972")  # IP packets of 1000 bytes, frames of 1014
CASES = {
    # Who gets a bucket.
    "each source": Case(UDP, "spoofed", SPOOFED, "src", sources("198.18.0.0/30"), 4),
    "each network": Case(UDP, "spoofed", SPOOFED, "src/24", sources("198.18.0.0/23"), 2),
    "all sources": Case(UDP, "spoofed", SPOOFED, "global", sources("198.18.0.0/15")),
    "each destination": Case(UDP, "spoofed", SPOOFED, "dst", sources("198.18.0.0/15")),
    "each /64": Case(UDP, "spoofed", SPOOFED, "src", sources("2001:db8::/62"), 4, version=6),
    "each IPv6 address": Case(UDP, "spoofed", SPOOFED, "src6/128", sources("2001:db8::/126"), 4, version=6),
    "each source port": Case("proto udp", "udp-amplification", AMPLIFIERS, "sport", keys=7),
    "each flow": Case("proto udp", "udp-amplification", AMPLIFIERS, "flow", keys=7),
    "each source and port": Case("proto udp", "udp-amplification", AMPLIFIERS, "src+dport"),
    # Which packets.
    "a source port": Case("proto udp sport 53", "udp-amplification", ("dns",)),
    "ports and ranges": Case("sport 100-400,11211", "udp-amplification", RANGED),
    "sources": Case("src 198.18.0.0/16", "spoofed", SPOOFED, "src", sources("198.18.9.0/31"), 2),
    "other sources": Case("src 198.19.0.0/16", "spoofed", (), "src", sources("198.18.9.0/31")),
    "a destination": Case("dst {to} proto udp", "spoofed", SPOOFED, "dst"),
    "IPv6": Case("ip 6 proto udp", "spoofed", SPOOFED, "src", sources("2001:db8::/128"), version=6),
    "IPv4 alone": Case("ip 4 proto udp", "spoofed", (), "src", sources("2001:db8::/128"), version=6),
    "a length": Case("length 128", "spoofed", SPOOFED, "global", ("--length", "100")),
    "another length": Case("length 0-127", "spoofed", (), "global", ("--length", "100")),
    "a DSCP": Case("dscp ef", "spoofed", SPOOFED, "global", ("--dscp", "46")),
    "another DSCP": Case("dscp 0-45,47-63 proto udp", "spoofed", (), "global", ("--dscp", "46")),
    "an interface": Case(f"iface {NIC} proto udp", "spoofed", SPOOFED, "global"),
    "another interface": Case("iface data1 proto udp", "spoofed", (), "global"),
    "a VLAN": Case("vlan 10", "vlan", ("vlan",)),
    "another VLAN": Case("vlan 11,none proto udp", "vlan", ()),
    "the outer VLAN": Case("vlan 100", "qinq", ("qinq",)),
    "ports in VLANs": Case(UDP, "qinq", ("qinq",)),
    "SYN": Case("proto tcp dport 80 syn", "syn-flood", ("syn",), answered=True),
    "SYN over IPv6": Case("proto tcp dport 80 syn", "syn-flood", ("syn",), version=6, answered=True),
    "ICMP": Case("icmp-type echo-request", "icmp", ("echo4",), answered=True),
    "ICMPv6": Case("icmp-type echo-request", "icmp", ("echo6",), version=6, answered=True),
    "behind extension headers": Case(UDP, "ipv6-extensions", CHAINS, version=6),
    # What happens to those who find it empty.
    "shadow": Case(UDP, "spoofed", SPOOFED, "dst", limit=SHADOW),
    "ban": Case(UDP, "spoofed", SPOOFED, "src", sources("198.18.7.0/30"), 4, limit=BAN),
    "bytes": Case(UDP, "spoofed", SPOOFED, "dst", LONG, burst=20, limit=BYTES),
    "bytes of frames": Case(UDP, "spoofed", SPOOFED, "dst", LONG, burst=19, limit=FRAMES),
}
DROPPED = ("limit", "kernel_ban", "contended")
IN_CI = ("each source", "the outer VLAN", "behind extension headers", "ban")


@pytest.fixture(scope="module")
def hearing(lab: Lab) -> Iterator[None]:
    lab.appliance.told("sh", "-c", HEARING.format(nic=NIC))
    yield
    lab.appliance.run("sh", "-c", DEAF)


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize("name", [pytest.param(name, marks=QUICK if name in IN_CI else ()) for name in CASES])
def test_a_limit_lets_through_what_it_says_and_nothing_else(lab: Lab, whole: Whole, name: str) -> None:
    case = CASES[name]
    sender = Sender(lab, NIC)
    whole.limit("case", **case.body(sender.wire.appliance4))
    whole.attach(NIC)
    before, met = whole.reasons(), whole.met(NIC)
    with serving(lab) as server:
        report = sender.send(
            case.profile, "--count", str(COUNT), "--rate", "500", *case.words, version=case.version
        )
        matched, allowed = expected(case, report)
        frames = report["total"]["frames"]
        until(lambda: whole.met(NIC) - met >= frames, "all packets met the program")
        counters = whole.counters("case")
        arrived = server.stopped()
    now = whole.reasons()
    dropped = {reason: now[reason] - before[reason] for reason in DROPPED}
    assert_counted(case, counters, dropped, matched, allowed)
    assert_came_through(case, report, arrived, matched if case.limit == SHADOW else allowed)
    assert len(whole.keys("case")) == (case.keys if matched else 0)


def expected(case: Case, report: dict[str, Any]) -> tuple[int, int]:
    """Packets that the limit is asked about, and how many of them have tokens."""
    sent = sum(report["kinds"][kind]["sent"] for kind in case.kinds)
    allowed = case.burst * case.keys if sent else 0
    assert allowed < sent or not sent, "too few packets to empty the buckets"
    if case.limit == BAN:
        return allowed + case.keys, allowed  # one more of each bans it
    return sent, allowed


def assert_counted(
    case: Case, counters: dict[str, int], dropped: dict[str, int], matched: int, allowed: int
) -> None:
    """The kernel's counters."""
    if case.limit == BAN:  # other queues may ask about a source while the one that refuses bans it
        assert case.keys <= counters["dropped"] <= case.keys * QUEUES
        matched = allowed + counters["dropped"]
    refused = matched - allowed
    told = tuple(counters[name] for name in ("matched", "passed", "dropped", "shadow_dropped"))
    if case.limit == SHADOW:
        assert told == (matched, matched, 0, refused)
        assert dropped["limit"] == 0
    else:
        assert told == (matched, allowed, refused, 0)
        # A queue's emulated CPU may stand still while it makes a bucket: what others have then is contended.
        assert dropped["limit"] + dropped["contended"] == refused
        assert dropped["contended"] < QUEUES
    assert dropped["kernel_ban"] == (COUNT - matched if case.limit == BAN else 0)


def assert_came_through(case: Case, report: dict[str, Any], arrived: dict[str, Any], allowed: int) -> None:
    """What either end saw of it: of the kinds that match the allowed ones, of others all."""
    if case.answered:
        seen = [report["kinds"][kind] for kind in case.kinds]
        assert sum(kind["answered"] + kind["refused"] for kind in seen) == allowed, report
        return
    came = {kind: arrived["kinds"].get(kind, {"arrived": 0})["arrived"] for kind in report["kinds"]}
    assert sum(came[kind] for kind in case.kinds) == allowed, (report, arrived)
    for kind in report["kinds"].keys() - set(case.kinds):
        assert came[kind] == report["kinds"][kind]["sent"], (report, arrived)
