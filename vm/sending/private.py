# SPDX-License-Identifier: Apache-2.0
"""Addresses that belong to nobody else: floods go there and nowhere else unless that is asked for."""

from ipaddress import ip_address, ip_network

from profiles.target import Address

PRIVATE = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "fe80::/10",
        "::1/128",
    )
)


def is_private(address: Address) -> bool:
    """Whether it is of RFC 1918, unique local, link-local or loopback; IPv4 inside IPv6 counts as IPv4."""
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    asked = ip_address(inner) if inner else address
    return any(asked.version == network.version and asked in network for network in PRIVATE)
