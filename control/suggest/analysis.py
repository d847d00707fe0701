# SPDX-License-Identifier: Apache-2.0
"""What rates and bursts would have done to the packets that were seen. Pure.

The arithmetic is that of adapters/gcra.py, for all keys and all choices at once: the nth packets of all keys
are one step. Buckets begin full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.cost import UNITS_A_NS, Cost

SECOND_NS = 1_000_000_000
ORDINARY = 0.99  # of the keys, those that sent least; the others may be whom the limit is for
HARMLESS = 0.001  # of the packets of ordinary keys
SECONDS = (1, 2, 5, 10)  # bursts, in seconds' worth of the rate
MOST_RATES = 12
SURE = 1.96  # standard deviations: 95 %

Array = NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """Packets by key and time. `key` counts from 0 on; each stands for `packets` of its key (chosen at
    random), each key for `keys` of them (chosen by their hash).
    """

    time: Array
    key: Array
    tokens: Array
    packets: int = 1
    keys: int = 1

    @property
    def count(self) -> int:
        """How many keys."""
        return int(self.key.max()) + 1 if len(self.key) else 0


@dataclass(frozen=True)
class Estimate:
    """A number of the whole, from the keys that were looked at: 95 % sure within `error`."""

    value: float
    error: float


@dataclass(frozen=True)
class Outcome:
    """What a choice would have dropped: packets, keys that lost any, the share of ordinary keys' packets."""

    dropped: Estimate
    keys: Estimate
    ordinary: float


def seen(time: Array, fingerprint: Array, tokens: Array, packets: int, keys: int) -> Seen:
    """In the order of time, whichever CPU told first."""
    order = np.argsort(time, kind="stable")
    _, key = np.unique(fingerprint[order], return_inverse=True)
    return Seen(time[order].astype(np.int64), key, tokens[order].astype(np.int64), packets, keys)


def replay(found: Seen, costs: Sequence[Cost]) -> Array:
    """Packets that each choice would have dropped of each key: (choices, keys)."""
    dropped = np.zeros((len(costs), found.count), np.int64)
    tat = np.zeros((len(costs), found.count), np.int64)
    tau = np.array([min(cost.tau, 1 << 61) for cost in costs], np.int64)[:, None]
    priced, which = np.unique(found.tokens * found.packets, return_inverse=True)
    price = np.array([[min(cost.of(int(n)), 1 << 61) for n in priced] for cost in costs], np.int64)
    begin = int(found.time[0]) if len(found.time) else 0
    order = np.argsort(found.key, kind="stable")
    keys = found.key[order]
    starts = np.searchsorted(keys, np.arange(found.count))
    sizes = np.diff(np.append(starts, len(keys)))
    by_size = np.argsort(-sizes, kind="stable")
    alive = found.count
    for nth in range(int(sizes.max(initial=0))):
        while alive and sizes[by_size[alive - 1]] <= nth:
            alive -= 1
        at = by_size[:alive]
        rows = order[starts[at] + nth]
        now = (found.time[rows] - begin) * UNITS_A_NS
        after = np.maximum(tat[:, at], now) + price[:, which[rows]]
        taken = after - now <= tau
        tat[:, at] = np.where(taken, after, tat[:, at])
        dropped[:, at] += ~taken
    return dropped * found.packets


def ordinary(found: Seen) -> Array:
    """Which keys are: all but the busiest hundredth."""
    sent = np.bincount(found.key, weights=found.tokens, minlength=found.count)
    left = max(1, ceil(found.count * ORDINARY))
    which = np.zeros(found.count, bool)
    which[np.argsort(sent, kind="stable")[:left]] = True
    return which


def outcomes(found: Seen, costs: Sequence[Cost]) -> list[Outcome]:
    """What each choice would have done."""
    usual = ordinary(found)
    all_usual = max(1, int(np.bincount(found.key, minlength=found.count)[usual].sum()) * found.packets)
    return [
        Outcome(estimate(row, found.keys), estimate(row > 0, found.keys), float(row[usual].sum() / all_usual))
        for row in replay(found, costs)
    ]


def estimate(each: Array, keys: int) -> Estimate:
    """The sum over all keys, of which one in `keys` was looked at: Horvitz and Thompson's, with its error."""
    values = each.astype(float)
    spread = sqrt((1 - 1 / keys) * float((values * values).sum())) * keys
    return Estimate(float(values.sum()) * keys, SURE * spread)


def rates(found: Seen) -> list[int]:
    """Tokens a second worth trying: 1, 2 and 5 times powers of ten, from what the middle key sent in its
    busiest second to twice what the busiest did.
    """
    if not found.count:
        return []
    second = (found.time - found.time[0]) // SECOND_NS
    cells, which = np.unique(found.key * (int(second.max()) + 1) + second, return_inverse=True)
    sums = np.bincount(which, weights=found.tokens * found.packets)
    busiest = np.zeros(found.count)
    np.maximum.at(busiest, cells // (int(second.max()) + 1), sums)
    low, high = max(1.0, float(np.median(busiest)) / 2), max(1.0, float(busiest.max()) * 2)
    steps = [
        round(digit * 10**power)
        for power in range(floor(log10(low)), ceil(log10(high)) + 1)
        for digit in (1, 2, 5)
    ]
    within = [step for step in steps if low <= step <= high] or [ceil(high)]
    return within[:: ceil(len(within) / MOST_RATES)]


def proposed(results: Sequence[Outcome]) -> int | None:
    """The first choice that does ordinary keys no harm; choices stand from tight to wide."""
    return next((place for place, one in enumerate(results) if one.ordinary < HARMLESS), None)
