# SPDX-License-Identifier: Apache-2.0
"""TCP: a SYN flood, and packets with flags that begin no connection.

A SYN carries its number as TCP sequence number: the answer acknowledges it.
"""

from random import Random

from scapy.layers.inet import TCP

from profiles.layers import ether, ip, source
from profiles.target import Made, Target

ODD = {"ack": "A", "synack": "SA", "rst": "R", "fin": "F", "null": "", "xmas": "FPU"}
KINDS = tuple(ODD)
MASK = 0xFFFFFFFF


def flood(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One SYN, from a random port."""
    src = source(target, chance)
    tcp = TCP(
        sport=chance.randint(1024, 65535),
        dport=target.tcp_port,
        flags="S",
        seq=(target.run + seq) & MASK,
        window=64240,
        options=[("MSS", 1460)],
    )
    frame = bytes(ether(target) / ip(target, src, seq) / tcp)
    return Made("syn", seq, (frame,), asks=target.sources is None)


def odd_flags(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """ACK, SYN and ACK, RST, FIN, no flag, and FIN with PSH and URG, in turn."""
    kind = KINDS[turn % len(KINDS)]
    tcp = TCP(
        sport=chance.randint(1024, 65535),
        dport=target.tcp_port,
        flags=ODD[kind],
        seq=(target.run + seq) & MASK,
        ack=chance.getrandbits(32),
    )
    frame = bytes(ether(target) / ip(target, source(target, chance), seq) / tcp)
    return Made(kind, seq, (frame,), asks=False)
