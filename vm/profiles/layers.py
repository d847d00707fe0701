# SPDX-License-Identifier: Apache-2.0
"""The lower layers and payloads that the profiles have in common."""

from ipaddress import ip_address
from random import Random
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from profiles.tag import ASK, FLOOD, SIZE, Tag, pack
from profiles.target import Address, Target


def ether(target: Target) -> Any:
    """The Ethernet header."""
    return Ether(src=target.src_mac, dst=target.dst_mac)


def ip(target: Target, src: Address, seq: int, **fields: Any) -> Any:
    """The IP header of the target's family. `seq` gives fragments of one packet one identification."""
    ends = {"src": str(src), "dst": str(target.dst)}
    if target.dst.version == 4:
        return IP(**ends, tos=target.dscp << 2, id=seq & 0xFFFF, **fields)
    return IPv6(**ends, tc=target.dscp << 2, **fields)


def source(target: Target, chance: Random) -> Address:
    """The sender's own address, or a random one where sources are to be random."""
    if target.sources is None:
        return target.src
    first = int(target.sources.network_address)
    number = first + chance.randrange(target.sources.num_addresses)
    return ip_address(number.to_bytes(4 if target.sources.version == 4 else 16, "big"))


def payload(target: Target, seq: int, kind: str, *, asks: bool, length: int = SIZE) -> bytes:
    """The mark, filled up to a length: the target's if it has one."""
    mark = pack(Tag(ASK if asks else FLOOD, target.run, seq, kind))
    return mark.ljust(length if target.length is None else target.length, b".")


def udp(target: Target, data: bytes, sport: int | None = None) -> Any:
    """A datagram to the echo, from the port that answers come back to."""
    return UDP(sport=target.own_port if sport is None else sport, dport=target.udp_port) / Raw(data)
