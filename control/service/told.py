# SPDX-License-Identifier: Apache-2.0
"""Buckets in tokens, for people: the kernel counts in time units of 1/64 ns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from valkyrie.control.cost import UNITS_A_NS, Cost
from valkyrie.control.limits import MEASURES, Limit, Override
from valkyrie.control.prefix import Prefix, parse_prefix


class Pricing:
    """What a key's bucket costs: as the narrowest override that covers it says, else as the limit does."""

    def __init__(self, limit: Limit, overrides: Sequence[Override]) -> None:
        self._limit = limit
        self._by_prefix = {parse_prefix(entry.prefix): entry for entry in overrides}
        self._lengths = sorted({(prefix.version, prefix.length) for prefix in self._by_prefix}, reverse=True)

    def of(self, key: str) -> Cost:
        """`key` as buckets are named: `198.51.100.7`, `10.0.0.1>10.0.0.2 dport 443`, `global`."""
        entry = self._covering(key) if self._by_prefix else None
        return self._limit.cost if entry is None else entry.cost(MEASURES[self._limit.measure])

    def _covering(self, key: str) -> Override | None:
        ends = key.split(" ", maxsplit=1)[0].split(">")
        # Overrides go by source where the key has one; the name begins with it.
        text = ends[0].split("/")[0]
        try:
            packed = ip_address(text).packed
        except ValueError:
            return None
        bits, value = len(packed) * 8, int.from_bytes(packed, "big")
        for version, length in self._lengths:
            if (version == 4) == (bits == 32):
                kept = (value >> (bits - length) << (bits - length)).to_bytes(bits // 8, "big")
                found = self._by_prefix.get(Prefix(version, kept, length))
                if found is not None:
                    return found
        return None


def bucket(limit: Limit, key: str, level: int, cost: Cost) -> dict[str, Any]:
    """A bucket that is `level` time units short of full."""
    left = max(0, cost.tau - level)
    return {
        "limit": limit.name,
        "key": key,
        "tokens_left": (left << cost.shift) // cost.mult,
        "burst": (cost.tau << cost.shift) // cost.mult,
        "full_in_ns": -(-level // UNITS_A_NS),
    }
