# SPDX-License-Identifier: Apache-2.0
"""Looking at buckets, and making them full again, in the mapped table.

A store of 64 bits into a bucket's word is atomic: a packet's compare-and-swap that it meets fails
and is tried again. Between looking a bucket up and storing, the kernel may give its place to another
key, which then starts full: a window of microseconds for one bucket.

A bucket is made full by the time now, not by 0: a packet that is being refused by a later limit gives
its cost back to the word, which below 0 would be a debt of centuries.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.dataplane.keyname import Record, name_of, uid_word
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.key import KeySpec

Places = tuple[NDArray[np.intp], NDArray[np.intp]]
PURGE_SETS = 8192


@dataclass(frozen=True)
class Bucket:
    """A bucket of the limit with this uid. `level` is how many time units it is short of full
    (1/64 ns; 0: full); a plan's tau less that is what is left.
    """

    uid: int
    key: str
    level: int
    fingerprint: int


def _places(
    dp: Dataplane, uids: Collection[int], record: Record | None, first: int = 0, last: int | None = None
) -> Places:
    """(set, way) of every bucket that belongs to the uids, and to the record if one is given."""
    names = dp.bucket_keys[first:last]["key"]
    if record is not None:
        wanted = np.array([uid_word(uid, record) for uid in uids], np.uint16)
        found = np.isin(names["uid"], wanted) & (names["dport"] == record.dport)
    else:
        found = np.isin(names["uid"] & np.uint16(abi.UID_MASK), np.array(sorted(uids), np.uint16))
    found &= dp.buckets[first:last]["fingerprint"] != 0
    sets, ways = np.nonzero(found)
    if record is not None:
        same = (names["addr"][sets, ways] == np.frombuffer(record.addr, np.uint8)).all(axis=1)
        sets, ways = sets[same], ways[same]
    return sets + first, ways


def find(
    dp: Dataplane,
    keys: Mapping[int, KeySpec],
    now_ns: int,
    *,
    record: Record | None = None,
    live: bool = True,
    count: int = 100,
) -> list[Bucket]:
    """Buckets of the limits with these uids, the one furthest from full first, at most `count`.

    `keys` tells each limit's key by its uid; `record` asks for one key; `live` leaves full ones out.
    """
    sets, ways = _places(dp, keys, record)
    tats = dp.buckets["tat"][sets, ways]
    now = np.uint64(now_ns << abi.TIME_SHIFT)
    levels = np.where(tats > now, tats - now, np.uint64(0))
    order = np.argsort(levels)[::-1]
    if live:
        order = order[levels[order] > 0]
    found: list[Bucket] = []
    for index in order[:count]:
        where, way = sets[index], ways[index]
        name = dp.bucket_keys["key"][where, way].copy()
        uid = int(name["uid"]) & abi.UID_MASK
        if uid not in keys:
            continue  # another key has taken the place since
        fingerprint = int(dp.buckets["fingerprint"][where, way])
        pair6 = bool(int(name["uid"]) & abi.UID_IPV6_PAIR)
        key = Record(int(name["dport"]), bytes(name["addr"]), pair6)
        found.append(Bucket(uid, name_of(key, keys[uid], fingerprint), int(levels[index]), fingerprint))
    return found


def _void_leases(dp: Dataplane, fingerprints: NDArray[np.uint64]) -> None:
    stale = np.isin(dp.leases["fingerprint"], fingerprints)
    dp.leases["valid_until"][stale] = 0


def reset(dp: Dataplane, uids: Collection[int], now_ns: int, record: Record | None = None) -> int:
    """Make the buckets of the uids (of one key, if a record is given) full again; how many there were.

    A full bucket is as good as none: its place is among the first that are taken. So this also is how
    the buckets of limits that are no more are forgotten, and their uids can be used again.
    Works through the table in pieces, so that looking and storing lie close together.
    """
    done = 0
    for first in range(0, len(dp.buckets), PURGE_SETS):
        sets, ways = _places(dp, uids, record, first, first + PURGE_SETS)
        dp.buckets["tat"][sets, ways] = np.uint64(now_ns << abi.TIME_SHIFT)
        if len(sets):
            _void_leases(dp, dp.buckets["fingerprint"][sets, ways])
        done += len(sets)
    return done


def cap(dp: Dataplane, uid: int, now_ns: int, tau: int) -> int:
    """Let no bucket of the uid be further from full than `tau`, the deepest that its plans know now; how
    many were. Such a bucket refuses every packet, and so nothing else writes its word.
    """
    sets, ways = _places(dp, [uid], None)
    most = np.uint64((now_ns << abi.TIME_SHIFT) + tau)
    deep = dp.buckets["tat"][sets, ways] > most
    dp.buckets["tat"][sets[deep], ways[deep]] = most
    return int(np.count_nonzero(deep))


def purge_others(dp: Dataplane, uids: Collection[int], now_ns: int) -> int:
    """Make all buckets full that belong to other uids than these; bans and callers' own buckets stay."""
    held = np.unique(dp.bucket_keys["key"]["uid"] & np.uint16(abi.UID_MASK))
    others = set(held.tolist()) - set(uids) - {abi.UID_BAN, abi.UID_CALL}
    return reset(dp, others, now_ns) if others else 0
