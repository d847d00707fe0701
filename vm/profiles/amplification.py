# SPDX-License-Identifier: Apache-2.0
"""UDP amplification: large datagrams from the well-known ports of services that are abused for it."""

from random import Random

from profiles.layers import ether, ip, payload, source, udp
from profiles.target import Made, Target

PORTS = {
    "dns": 53,
    "ntp": 123,
    "snmp": 161,
    "cldap": 389,
    "ssdp": 1900,
    "chargen": 19,
    "memcached": 11211,
}
KINDS = tuple(PORTS)
SHORTEST, LONGEST = 400, 1400


def make(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One datagram, the services in turn."""
    kind = KINDS[turn % len(KINDS)]
    src = source(target, chance)
    data = payload(target, seq, kind, asks=False, length=chance.randint(SHORTEST, LONGEST))
    frame = bytes(ether(target) / ip(target, src, seq) / udp(target, data, PORTS[kind]))
    return Made(kind, seq, (frame,), asks=False)
