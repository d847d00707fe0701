# SPDX-License-Identifier: Apache-2.0
"""From a limit and a key to what the program `call` is asked: a header for the limit, an entry for the key.

Keys that come again cost a dictionary access; the bounds of what is kept are in this file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from socket import AF_INET, AF_INET6, inet_pton

import numpy as np
from numpy.typing import NDArray

from valkyrie.adapters.asked import encoded, end_of
from valkyrie.adapters.limit import Limit
from valkyrie.control import abi
from valkyrie.control.cost import Cost
from valkyrie.control.dataplane import call
from valkyrie.control.dataplane.call import Array, opaque_entries
from valkyrie.control.dataplane.call_entry import entry_of
from valkyrie.control.dataplane.keyname import opaque, record_of
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import ID, KeySpec
from valkyrie.control.prefix import MAPPED, SIX_TO_FOUR

KEPT_ENTRIES = 8192
KEPT_COSTS = 4096
AMOUNT = struct.Struct("=Q")
ONE = AMOUNT.pack(1)
NONE = bytes(16)

cost_of = lru_cache(KEPT_COSTS)(Cost)


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """A limit as it lies in the ruleset in force, or a caller's own."""

    limit: Limit
    header: bytes

    def entry(self, key: str, n: int) -> bytes:
        """Raises InvalidInput for a key that does not fit the limit."""
        return _prefix(self, key) + (ONE if n == 1 else AMOUNT.pack(n))

    def entries(self, keys: Sequence[str] | NDArray[np.uint8], n: int) -> Array:
        """Entries for many keys: texts, or an array (count, 16) of opaque keys or canonical addresses.

        Raises InvalidInput.
        """
        if isinstance(keys, np.ndarray):
            _check_array(keys, self.limit)
            return opaque_entries(np.ascontiguousarray(keys, np.uint8).tobytes(), n)
        if not self.limit.declared:
            own = self.limit.name
            return opaque_entries(b"".join([opaque(encoded(key).decode(), own).addr for key in keys]), n)
        if self.limit.key.id:
            return opaque_entries(b"".join([opaque(key).addr for key in keys]), n)
        return np.frombuffer(b"".join([self.entry(key, n) for key in keys]), abi.CALL_ENTRY)


def declared(limit: Limit, position: int) -> Target:
    return Target(limit, call.declared(limit.uid, position))


def own(limit: Limit) -> Target:
    return Target(limit, call.own(limit.cost))


@lru_cache(KEPT_ENTRIES)
def _prefix(target: Target, key: str) -> bytes:
    """The entry less its amount."""
    limit = target.limit
    encoded(key)
    if not limit.declared:
        return entry_of(opaque(key, limit.name), ID, 0)[:-8]
    if limit.key.id:
        return entry_of(opaque(key), ID, 0)[:-8]
    address = _address(key, limit.key)
    if address is not None:
        ends = (address, NONE) if limit.key.src4 is not None else (NONE, address)
        return b"".join(ends) + bytes(8)
    return entry_of(record_of(key, limit.key), limit.key, 0, _flags(key, limit.key))[:-8]


def _flags(key: str, spec: KeySpec) -> int:
    """What overrides of IPv6 prefixes around 6to4 need to know: the program sees the IPv4 address inside."""
    if spec.src4 is None and spec.dst4 is None:
        return 0
    end = end_of(key, destination=spec.src4 is None)
    return abi.CALL_6TO4 if isinstance(end, IPv6Address) and end.sixtofour else 0


def _address(key: str, spec: KeySpec) -> bytes | None:
    """A bare address that is the whole key, the usual case; None: look closer. The program masks it."""
    if (spec.src4 is None) == (spec.dst4 is None) or spec.sport or spec.dport or spec.proto:
        return None
    try:
        return MAPPED + inet_pton(AF_INET, key)
    except (OSError, ValueError):
        pass
    try:
        address = inet_pton(AF_INET6, key)
    except (OSError, ValueError):
        return None
    return None if address.startswith((MAPPED, SIX_TO_FOUR)) else address


def _check_array(keys: NDArray[np.uint8], limit: Limit) -> None:
    if keys.ndim != 2 or keys.shape[1] != 16 or keys.dtype != np.uint8:
        raise InvalidInput("keys are no array (count, 16) of bytes", "hand over texts, or 16 bytes a key")
    spec = limit.key
    if (
        limit.declared
        and not spec.id
        and (spec.src4 is None or spec.dst4 is not None or spec.sport or spec.dport)
    ):
        raise InvalidInput(f"keys of limit {limit.name} are more than a source", "hand over texts")
