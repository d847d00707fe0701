# SPDX-License-Identifier: Apache-2.0
"""All profiles by name. Scapy is imported with a profile, so that a list of them needs none."""

from dataclasses import dataclass
from importlib import import_module
from typing import cast

from profiles.target import Builder


@dataclass(frozen=True)
class Profile:
    """Where a profile's builder is, and what it does. `family`: the only one it has, if so."""

    place: str
    summary: str
    family: int | None = None

    def builder(self) -> Builder:
        """The function that makes its packets."""
        module, name = self.place.split(":")
        return cast("Builder", getattr(import_module(f"profiles.{module}"), name))


MIXED = "mixed"
PROFILES = {
    "syn-flood": Profile("syn:flood", "TCP SYNs from random ports to --tcp-port"),
    "tcp-flags": Profile("syn:odd_flags", "TCP with ACK, SYN+ACK, RST, FIN, no flag, FIN+PSH+URG in turn"),
    "udp-amplification": Profile(
        "amplification:make", "large UDP from ports 53, 123, 161, 389, 1900, 19, 11211"
    ),
    "icmp": Profile("icmp:make", "echo requests, and ICMP that nobody answers; v4 or v6 as --to is"),
    "ping": Profile("icmp:echo", "echo requests alone"),
    "fragments": Profile(
        "fragments:make", "datagrams in three parts, tiny first parts, overlapping parts in turn"
    ),
    "ipv6-extensions": Profile(
        "extensions:make", "UDP behind hop-by-hop, destination options, routing, and all of them", 6
    ),
    "vlan": Profile("tagged:vlan", "UDP in a VLAN (--vlan)"),
    "qinq": Profile("tagged:qinq", "UDP in a VLAN in a VLAN (--outer-vlan, --vlan)"),
    "spoofed": Profile("spoofed:make", "UDP from random sources (--from; usually 198.18.0.0/15)"),
    "legit": Profile("legit:make", "UDP to an echo, pings, HTTP requests (--http-port) that want answers"),
    MIXED: Profile("mixed:beside", "one packet in --share of `legit`, the others of --flood"),
}
