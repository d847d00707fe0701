# SPDX-License-Identifier: Apache-2.0
"""What the demo sets and sends, and what must come through.

Every limit has traffic of its own, told apart by its destination port, from 198.18.0.0/15 and
2001:2::/48, the addresses that are kept for benchmarks. Bursts are a second's worth, so that no bucket
fills up unused when a busy machine holds the sender back for a moment.
"""

from collections.abc import Callable
from dataclasses import dataclass

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from valkyrie.control.lab.generator import Sources

UDP_PROTOCOL, TCP_PROTOCOL = 17, 6
SYN, ACK = 0x02, 0x10

Expectation = Callable[[float, int], float]


@dataclass(frozen=True)
class Stream:
    """Traffic of one kind and what becomes of it.

    `rate`: frames a second, None for a flood. `limit`: arguments of `limits set` after the name,
    none when no limit is meant to match. `expected(seconds, offered)`: packets that pass.
    `scapy`: sent frame by frame from scapy's bytes, not by the kernel's generator.
    """

    name: str
    told: str
    port: int
    frame: Packet
    rate: int | None
    expected: Expectation
    limit: tuple[str, ...] = ()
    sources: Sources = Sources()  # noqa: RUF009 - frozen
    flag: int = 0
    scapy: bool = False
    shadow: Expectation | None = None

    @property
    def version(self) -> int:
        return 6 if IPv6 in self.frame else 4

    @property
    def protocol(self) -> int:
        return TCP_PROTOCOL if TCP in self.frame else UDP_PROTOCOL


def udp4(port: int, source: str, size: int = 60) -> Packet:
    """An IPv4 packet of `size` bytes."""
    return IP(src=source, dst="192.0.2.1") / UDP(sport=4000, dport=port, chksum=0) / Raw(bytes(size - 28))


def all_of_it(_: float, offered: int) -> float:
    return offered


def bucket(rate: float, burst: float, buckets: int = 1) -> Expectation:
    """What so many buckets let through that are always asked for more."""
    return lambda seconds, _: buckets * (burst + rate * seconds)


STREAMS = (
    Stream(
        "per-source", "100 packets/s for each of 20 sources", 7001, udp4(7001, "198.18.1.0"), 20_000,
        bucket(100, 100, 20),
        ("--match", "proto udp dport 7001", "--key", "src/32", "--rate", "100/s", "--burst", "100"),
        Sources(20, "next"),
    ),
    Stream(
        "in-total", "5,000 packets/s, ten thousand sources together", 7002, udp4(7002, "198.18.64.0"), 50_000,
        bucket(5000, 5000),
        ("--match", "proto udp dport 7002", "--key", "global", "--rate", "5000/s", "--burst", "5000"),
        Sources(10_000, "random"),
    ),
    Stream(
        "bytes", "8 Mbit/s of IP packets of 1,000 bytes", 7003, udp4(7003, "198.18.3.1", 1000), 5_000,
        bucket(1000, 1000),
        ("--match", "proto udp dport 7003", "--key", "src/24", "--rate", "8mbit/s", "--burst", "1MB"),
    ),
    Stream(
        "syn", "50 connections/s for a /24, by scapy", 443,
        IP(src="198.18.4.4", dst="192.0.2.1") / TCP(sport=4000, dport=443, flags="S"), 500,
        bucket(50, 50),
        ("--match", "proto tcp dport 443 syn", "--key", "src/24", "--rate", "50/s", "--burst", "50"),
        flag=SYN, scapy=True,
    ),
    Stream(
        "not syn", "what belongs to connections passes, by scapy", 443,
        IP(src="198.18.4.4", dst="192.0.2.1") / TCP(sport=4000, dport=443, flags="A"), 500,
        all_of_it, flag=ACK, scapy=True,
    ),
    Stream(
        "shadow", "1,000 packets/s, counted only", 7005, udp4(7005, "198.18.5.1"), 10_000,
        all_of_it,
        ("--match", "proto udp dport 7005", "--key", "src", "--rate", "1000/s", "--shadow"),
        shadow=bucket(1000, 1000),
    ),
    Stream(
        "ipv6", "200 packets/s for each of 8 networks (/64)", 7006,
        IPv6(src="2001:2::1", dst="2001:db8::1") / UDP(sport=4000, dport=7006) / Raw(bytes(32)), 16_000,
        bucket(200, 200, 8),
        ("--match", "ip 6 proto udp dport 7006", "--key", "src6/64", "--rate", "200/s", "--burst", "200"),
        Sources(8, "next"),
    ),
    Stream(
        "ban", "300 packets a source, then nothing for an hour", 7007, udp4(7007, "198.18.7.0"), 5_000,
        lambda _, __: 10 * 300,
        ("--match", "proto udp dport 7007", "--key", "src", "--rate", "1/h", "--burst", "300", "--ban", "1h"),
        Sources(10, "next"),
    ),
    Stream(
        "no limit", "other traffic passes", 7008, udp4(7008, "198.18.8.0"), 5_000, all_of_it,
        sources=Sources(200, "next"),
    ),
)  # fmt: skip

FLOOD = Stream(
    "flood", "20,000 packets/s, a million spoofed sources, flat out", 7009, udp4(7009, "198.18.0.0"), None,
    bucket(20_000, 20_000),
    ("--match", "proto udp dport 7009", "--key", "global", "--rate", "20000/s", "--burst", "20000"),
    Sources(1_000_000, "random"),
)  # fmt: skip


def framed(stream: Stream, source_mac: str, destination_mac: str) -> bytes:
    """The frame as it goes on the wire."""
    return bytes(Ether(src=source_mac, dst=destination_mac) / stream.frame)
