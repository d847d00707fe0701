# SPDX-License-Identifier: Apache-2.0
"""Counters summed over CPUs. The kernel counts without locks, each CPU for itself."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.dataplane.maps import Array, Dataplane


def _summed(per_cpu: Array) -> Array:
    """(cpus, n) of a record of 64-bit words -> (n,), field by field."""
    words = per_cpu.view(np.uint64).reshape(*per_cpu.shape, -1)
    summed: NDArray[np.uint64] = words.sum(axis=0)
    return summed.view(per_cpu.dtype).reshape(-1)


def limits(dp: Dataplane) -> Array:
    """abi.LIMIT_STATS by slot, (MAX_LIMITS,)."""
    return _summed(dp.limit_stats)


def reasons(dp: Dataplane) -> Array:
    """abi.REASON_STATS by Reason, (REASONS,)."""
    return _summed(dp.reason_stats)


def table(dp: Dataplane) -> dict[str, int]:
    """What became of buckets and events: inserted, evicted_live, contended, events_sent, events_lost,
    events_limited, bans.
    """
    summed = _summed(dp.table_stats.reshape(-1, 1))[0]
    names = ("inserted", "evicted_live", "contended", "events_sent", "events_lost", "events_limited", "bans")
    return {name: int(summed[name]) for name in names}


def occupancy(dp: Dataplane, now_ns: int) -> int:
    """How many buckets are not full at this time (ns since boot)."""
    return int(np.count_nonzero(dp.buckets["tat"] > np.uint64(now_ns << abi.TIME_SHIFT)))


def leases(dp: Dataplane, now_ns: int) -> tuple[int, int, float, float]:
    """Leases with something left: how many are good at this time (ns since boot) and how many are not, and
    what is left of both in seconds.
    """
    left = dp.leases["left"]
    good = dp.leases["valid_until"] > np.uint64(now_ns << abi.TIME_SHIFT)
    second = float(10**9 << abi.TIME_SHIFT)
    held, lapsed = left[good], left[~good]
    return (
        int(np.count_nonzero(held)),
        int(np.count_nonzero(lapsed)),
        float(held.sum()) / second,
        float(lapsed.sum()) / second,
    )


def zero(dp: Dataplane, slots: Collection[int]) -> None:
    """Set the counters of these slots to zero; a packet in between may be lost to the count."""
    dp.limit_stats.view(np.uint64).reshape(*dp.limit_stats.shape, -1)[:, sorted(slots)] = 0
