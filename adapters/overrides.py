# SPDX-License-Identifier: Apache-2.0
"""Other figures of a limit for some prefixes: the longest that holds the address wins, as in the kernel."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

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

    def find(self, address: str) -> Cost | None:
        """The figures for an address, None if no prefix holds it."""
        found = ip_address(address)
        number = int(found)
        for (version, host_bits), costs in self._by_length:
            if version == found.version and (cost := costs.get(number >> host_bits)) is not None:
                return cost
        return None
