# SPDX-License-Identifier: Apache-2.0
"""What ordinary users send: UDP to an echo, pings, and HTTP requests where there is a server."""

from dataclasses import replace
from random import Random

from profiles import icmp
from profiles.layers import ether, ip, payload, udp
from profiles.target import Made, Target


def make(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One packet, or one request (it has no frames: the kernel's TCP sends it), the kinds in turn.

    The source is always the sender's own: users want answers.
    """
    own = replace(target, sources=None)
    kinds = ("udp", "echo", "http") if target.http_port else ("udp", "echo")
    match kinds[turn % len(kinds)]:
        case "udp":
            data = payload(own, seq, "udp", asks=True)
            frame = bytes(ether(own) / ip(own, own.src, seq) / udp(own, data))
            return Made("udp", seq, (frame,), asks=True)
        case "echo":
            return icmp.echo(own, chance, seq, turn)
        case _:
            return Made("http", seq, (), asks=True)
