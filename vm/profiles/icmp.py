# SPDX-License-Identifier: Apache-2.0
"""ICMP of the target's family: echo requests, and messages that nobody answers."""

from random import Random
from typing import Any

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6TimeExceeded, IPv6
from scapy.packet import Raw

from profiles.layers import ether, ip, payload, source
from profiles.target import Made, Target

KINDS4 = ("echo4", "timestamp4", "unreach4")
KINDS6 = ("echo6", "exceeded6", "unreach6")


def make(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One message, the kinds in turn."""
    kinds = KINDS4 if target.dst.version == 4 else KINDS6
    kind = kinds[turn % len(kinds)]
    asks = kind.startswith("echo") and target.sources is None
    return _made(target, chance, seq, kind, asks=asks)


def echo(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One echo request."""
    return _made(target, chance, seq, f"echo{target.dst.version}", asks=target.sources is None)


def _made(target: Target, chance: Random, seq: int, kind: str, *, asks: bool) -> Made:
    # One of these about an asking packet would itself look like a refusal: the mark is a flood's.
    data = payload(target, seq, kind, asks=asks)
    message = _message(target, seq, kind, data)
    return Made(kind, seq, (bytes(ether(target) / ip(target, source(target, chance), seq) / message),), asks)


def _message(target: Target, seq: int, kind: str, data: bytes) -> Any:
    ident, number = target.run & 0xFFFF, seq & 0xFFFF
    ends = {"src": str(target.dst), "dst": str(target.src)}
    about = UDP(sport=target.udp_port, dport=target.own_port) / Raw(data)
    match kind:
        case "echo4":
            return ICMP(type=8, id=ident, seq=number) / Raw(data)
        case "timestamp4":
            return ICMP(type=13, id=ident, seq=number) / Raw(data)
        case "unreach4":
            return ICMP(type=3, code=3) / IP(**ends) / about
        case "echo6":
            return ICMPv6EchoRequest(id=ident, seq=number, data=data)
        case "exceeded6":
            return ICMPv6TimeExceeded() / IPv6(**ends) / about
        case _:
            return ICMPv6DestUnreach(code=4) / IPv6(**ends) / about
