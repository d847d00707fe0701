# SPDX-License-Identifier: Apache-2.0
"""Other figures of a limit for some prefixes: the longest that holds the address wins, as in the kernel."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network

from valkyrie.control.cost import Cost


class Overrides:
    """Costs by prefix. A lookup costs one dictionary access for each prefix length in use."""

    __slots__ = ("_by_length", "destination")

    def __init__(self, entries: Iterable[tuple[str, Cost]], *, destination: bool = False) -> None:
        """`destination`: overrides go by the destination, since the limit's key has no source."""
        self.destination = destination
        by_length: dict[tuple[int, int], dict[int, Cost]] = {}
        for prefix, cost in entries:
            network = ip_network(prefix)
            host_bits = network.max_prefixlen - network.prefixlen
            by_length.setdefault((network.version, host_bits), {})[
                int(network.network_address) >> host_bits
            ] = cost
        self._by_length = sorted(by_length.items())

    def find(self, address: IPv4Address | IPv6Address) -> Cost | None:
        """The figures for an address, None if no prefix holds it.

        A v4-mapped address is how sockets write an IPv4 client. For 6to4, IPv6 prefixes around all of it come
        after those of the IPv4 address inside.
        """
        if isinstance(address, IPv4Address):
            return self._longest(address)
        inside = address.ipv4_mapped or address.sixtofour
        found = self._longest(inside) if inside else None
        return self._longest(address) if found is None and not address.ipv4_mapped else found

    def _longest(self, address: IPv4Address | IPv6Address) -> Cost | None:
        number = int(address)
        for (version, host_bits), costs in self._by_length:
            if version == address.version and (cost := costs.get(number >> host_bits)) is not None:
                return cost
        return None
