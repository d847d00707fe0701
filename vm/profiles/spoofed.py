# SPDX-License-Identifier: Apache-2.0
"""UDP from sources that are random in a prefix, and that no answer may reach."""

from dataclasses import replace
from ipaddress import ip_network
from random import Random

from profiles.layers import ether, ip, payload, source, udp
from profiles.target import Made, Target

# For benchmarks and documentation: no host of anybody has such an address.
USUAL = {4: ip_network("198.18.0.0/15"), 6: ip_network("2001:db8::/32")}


def make(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One datagram from a random source and port."""
    given = target if target.sources else replace(target, sources=USUAL[target.dst.version])
    data = payload(given, seq, "spoofed", asks=False)
    sport = chance.randint(1024, 65535)
    frame = bytes(ether(given) / ip(given, source(given, chance), seq) / udp(given, data, sport))
    return Made("spoofed", seq, (frame,), asks=False)
