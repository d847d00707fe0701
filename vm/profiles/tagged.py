# SPDX-License-Identifier: Apache-2.0
"""UDP in VLANs: one tag, or two (802.1ad around 802.1Q). Nobody who has no such VLAN answers."""

from random import Random

from scapy.layers.l2 import Dot1Q

from profiles.layers import ether, ip, payload, source, udp
from profiles.target import Made, Target

SERVICE_TAG = 0x88A8


def vlan(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One datagram with one tag."""
    data = payload(target, seq, "vlan", asks=False)
    inside = ip(target, source(target, chance), seq) / udp(target, data)
    frame = bytes(ether(target) / Dot1Q(vlan=target.vlan) / inside)
    return Made("vlan", seq, (frame,), asks=False)


def qinq(target: Target, chance: Random, seq: int, turn: int) -> Made:
    """One datagram with two tags."""
    data = payload(target, seq, "qinq", asks=False)
    inside = ip(target, source(target, chance), seq) / udp(target, data)
    outer = ether(target)
    outer.type = SERVICE_TAG
    frame = bytes(outer / Dot1Q(vlan=target.outer_vlan) / Dot1Q(vlan=target.vlan) / inside)
    return Made("qinq", seq, (frame,), asks=False)
