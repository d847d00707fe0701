# SPDX-License-Identifier: Apache-2.0
"""What packets are made for, and what a builder makes."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Target:
    """From whom to whom, and how the packets are to look."""

    run: int
    src: Address
    dst: Address
    src_mac: str
    dst_mac: str
    udp_port: int = 7007  # an echo of `traffic.py serve`
    tcp_port: int = 80
    http_port: int | None = None
    own_port: int = 40007  # where answers to UDP come back
    sources: Network | None = None  # random sources out of here instead of `src`
    dscp: int = 0
    length: int | None = None  # bytes of payload; None: what the profile takes
    vlan: int = 10
    outer_vlan: int = 100


@dataclass(frozen=True)
class Made:
    """A packet: its frames (several if it is sent in fragments), or no frames for an HTTP request.

    `asks`: a stock kernel with the services that are meant answers it.
    """

    kind: str
    seq: int
    frames: tuple[bytes, ...]
    asks: bool


# (target, chance, number of the packet in the run, number among this profile's packets)
Builder = Callable[[Target, Random, int, int], Made]
