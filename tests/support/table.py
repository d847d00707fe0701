# SPDX-License-Identifier: Apache-2.0
"""A bucket table in this process's memory, shaped as the mapped one, and what a sync needs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane.keyname import Record, uid_word
from valkyrie.control.durable.names import Entries
from valkyrie.control.key import KeySpec


class Table:
    """`buckets` and `bucket_keys` as Dataplane has them."""

    def __init__(self, sets: int) -> None:
        pair = np.dtype([("fingerprint", "u8"), ("tat", "u8")])
        self.buckets = np.zeros((sets, abi.WAYS), pair)
        self.bucket_keys = np.zeros(sets, abi.BUCKET_KEY_SET)
        self.limit_stats = np.zeros((2, abi.MAX_LIMITS), abi.LIMIT_STATS)

    def put(self, place: int, uid: int, record: Record, tat: int) -> None:
        """Another key takes the place, as the kernel does it."""
        where = place // abi.WAYS, place % abi.WAYS
        self.buckets["fingerprint"][where] = 0
        key = self.bucket_keys["key"][where]
        key["uid"], key["dport"] = uid_word(uid, record), record.dport
        key["addr"] = np.frombuffer(record.addr, np.uint8)
        self.bucket_keys["key"][where] = key
        self.buckets["tat"][where] = tat
        self.buckets["fingerprint"][where] = place + 1

    def tat(self, place: int) -> int:
        return int(self.buckets["tat"][place // abi.WAYS, place % abi.WAYS])

    def set_tat(self, place: int, tat: int) -> None:
        self.buckets["tat"][place // abi.WAYS, place % abi.WAYS] = tat

    def fill(self, count: int, uid: int, tats: Any) -> None:
        """The first places, each with an address of its own."""
        flat = np.arange(count)
        sets, ways = flat // abi.WAYS, flat % abi.WAYS
        keys = np.zeros(count, abi.BUCKET_KEY)
        keys["uid"] = uid
        keys["addr"][:, 8:] = (flat + 1).astype(">u8").view(np.uint8).reshape(-1, 8)
        self.bucket_keys["key"][sets, ways] = keys
        self.buckets["tat"][sets, ways] = tats
        self.buckets["fingerprint"][sets, ways] = flat + 1


class Tables:
    """What control/sync.py asks of the kernel's engine."""

    def __init__(self, plane: Table, *, unfilled: bool = False) -> None:
        self.plane: Any = plane
        self.unfilled = unfilled
        self.building = False
        self.restored: list[tuple[int, int]] = []  # uid, level

    def filled(self) -> None:
        self.unfilled = False

    def restore(self, entries: Entries, specs: Mapping[int, KeySpec]) -> int:
        assert set(entries["uid"].tolist()) <= specs.keys()
        self.restored += zip(entries["uid"].tolist(), entries["level"].tolist(), strict=True)
        return len(entries)


def address(number: int) -> Record:
    """An IPv4 host's record."""
    return Record(0, bytes(10) + b"\xff\xff" + number.to_bytes(4, "big"))
