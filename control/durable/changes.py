# SPDX-License-Identifier: Apache-2.0
"""Which buckets a store must be told of. Pure: arrays in, places out.

The shadow holds, for each place of the table, the TAT that the store was last told of or that need not be
told: 8 bytes a bucket, and nothing else waits for a store that is away. A bucket matters while it is
further from full than one interval: what is full again before the next round is forgotten without loss.

TATs only rise, but for resets, purges and caps; so one that is lower than what the store holds was reset:
the store must forget it. A charge that a later limit undoes lowers a TAT as well, by less than `slack`
mostly: the store is then stricter by so much, and is left alone. A reset is missed if its place is given
to another key before the next round: what the store holds then ends by itself, when it would be full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi

Words = NDArray[np.uint64]
Places = NDArray[np.uint32]  # set * WAYS + way; a table has at most 2^26 buckets
Keys = NDArray[Any]  # abi.BUCKET_KEY

PIECE_SETS = 8192  # looked at together: 512 KiB of TATs, which a processor's cache holds


class Table(Protocol):
    """The mapped table, fields by name: `fingerprint` and `tat` of (sets, WAYS), `key` likewise."""

    @property
    def buckets(self) -> NDArray[Any]: ...
    @property
    def bucket_keys(self) -> NDArray[Any]: ...


class Shadow:
    """What the store was told, place by place. Pages of it that were never written take no memory."""

    def __init__(self, sets: int) -> None:
        self.told: Words = np.zeros((sets, abi.WAYS), np.uint64)

    def forget(self) -> None:
        """The store knows nothing, or what it knows is in doubt."""
        self.told = np.zeros(self.told.shape, np.uint64)

    def put(self, places: Places, tats: Words | int) -> None:
        self.told[places // abi.WAYS, places % abi.WAYS] = tats

    def all_told(self, tats: Words) -> None:
        """The store holds all that the table holds."""
        self.told[:] = tats


@dataclass(frozen=True)
class Owed:
    """Places to write, and places whose name the store must forget first."""

    write: Places
    drop: Places

    def __len__(self) -> int:
        return len(self.write) + len(self.drop)


def owed(tats: Words, shadow: Shadow, floor: int, slack: int, again: range = range(0)) -> Owed:
    """What the store must be told. `floor` is the TAT up to which a bucket does not matter; buckets in the
    sets `again` are told whether they changed or not. What does not matter is marked as told.
    """
    writes: list[Places] = []
    drops: list[Places] = []
    for first in range(0, len(tats), PIECE_SETS):
        piece = slice(first, first + PIECE_SETS)
        seen, told = tats[piece], shadow.told[piece]
        differs = seen != told
        if again and again.start < first + PIECE_SETS and first < again.stop:
            part = slice(max(0, again.start - first), again.stop - first)
            differs[part] |= seen[part] > np.uint64(floor)
        if differs.any():
            write, drop = _sorted_out(seen, told, differs, np.uint64(floor), np.uint64(slack))
            offset = np.uint32(first * abi.WAYS)
            writes.append(write.astype(np.uint32) + offset)
            drops.append(drop.astype(np.uint32) + offset)
    none: list[Places] = [np.empty(0, np.uint32)]
    return Owed(np.concatenate(writes or none), np.concatenate(drops or none))


def _sorted_out(
    seen: Words, told: Words, differs: NDArray[np.bool_], floor: np.uint64, slack: np.uint64
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Flat places of a piece to write and to drop; those that do not matter are marked in `told`."""
    sets, ways = np.nonzero(differs)
    now, before = seen[sets, ways], told[sets, ways]
    lower = now < before
    live = now > floor
    reset = lower & (before > floor) & (before - now > slack)
    write = live & (~lower | reset)
    idle = ~live & ~reset
    told[sets[idle], ways[idle]] = now[idle]
    flat = sets * abi.WAYS + ways
    return flat[write], flat[reset]


@dataclass(frozen=True)
class Seen:
    """Buckets as they were at one moment, place by place."""

    places: Places
    tats: Words
    keys: Keys

    def __len__(self) -> int:
        return len(self.places)

    def part(self, first: int, count: int) -> Seen:
        piece = slice(first, first + count)
        return Seen(self.places[piece], self.tats[piece], self.keys[piece])


def look(table: Table, places: Places) -> Seen:
    """TATs and keys that belong together. A place that is changing hands is left out: it stays owed."""
    sets, ways = places // abi.WAYS, places % abi.WAYS
    fingerprints = table.buckets["fingerprint"]
    before = fingerprints[sets, ways]
    tats = table.buckets["tat"][sets, ways]
    keys = table.bucket_keys["key"][sets, ways]
    whole = (before != 0) & (fingerprints[sets, ways] == before)
    if whole.all():
        return Seen(places, tats, keys)
    return Seen(places[whole], tats[whole], keys[whole])
