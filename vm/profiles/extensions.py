# SPDX-License-Identifier: Apache-2.0
"""IPv6 with extension headers before UDP: hop-by-hop, destination options, routing, and all in a chain."""

from random import Random
from typing import Any

from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN

from profiles.layers import ether, ip, payload, source, udp
from profiles.target import Made, Target

KINDS = ("hopbyhop", "destopt", "routing", "chain")


def make(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One datagram behind extension headers, the kinds in turn."""
    kind = KINDS[turn % len(KINDS)]
    asks = target.sources is None
    data = payload(target, seq, kind, asks=asks)
    packet = ether(target) / ip(target, source(target, chance), seq)
    for header in _headers(kind):
        packet /= header
    return Made(kind, seq, (bytes(packet / udp(target, data)),), asks)


def _headers(kind: str) -> list[Any]:
    # A route without segments that are left is passed over by every host; with some it is refused.
    hop, destination = IPv6ExtHdrHopByHop(options=[_pad()]), IPv6ExtHdrDestOpt(options=[_pad()])
    routing = IPv6ExtHdrRouting(type=0, segleft=0, addresses=[])
    return {
        "hopbyhop": [hop],
        "destopt": [destination],
        "routing": [routing],
        "chain": [hop, routing, destination],
    }[kind]


def _pad() -> Any:
    return PadN(optdata=bytes(4))
