# SPDX-License-Identifier: Apache-2.0
"""The limiter's arithmetic: the generic cell rate algorithm in its virtual-scheduling form (ITU-T I.371).

A bucket is its theoretical arrival time (TAT), the instant at which it is full again. Its level is how far
that lies ahead of now, in units of 1/64 ns: 0 is a full bucket, tau an empty one. Integers throughout, and
bit for bit what the kernel's program computes (charge_tat in bpf/).
"""

from __future__ import annotations

from math import inf

from valkyrie.adapters.store import Decision
from valkyrie.control.cost import UNITS_A_NS, Cost

UNITS_A_US = 1000 * UNITS_A_NS
US_A_SECOND = 1_000_000


def take(level: int, cost: Cost, n: int) -> tuple[bool, int]:
    """Whether `n` tokens are there, and the level after it; a refusal takes nothing."""
    after = level + cost.of(n)
    return (True, after) if after <= cost.tau else (False, level)


def remaining(level: int, cost: Cost) -> int:
    """The most tokens that one call could still take: the largest m with level + cost.of(m) <= tau."""
    return max(0, (cost.tau - level << cost.shift) // cost.mult)


def seconds(units: int) -> float:
    """Time units as seconds, rounded up to a microsecond: whoever waits so long does not come early."""
    return -(-units // UNITS_A_US) / US_A_SECOND


def decision(level_after: int, cost: Cost, n: int, allowed: bool, store: str) -> Decision:
    """The answer to a call that left the bucket at `level_after`."""
    wanted = cost.of(n)
    if allowed:
        retry = 0.0
    elif wanted > cost.tau:
        retry = inf
    else:
        retry = seconds(level_after + wanted - cost.tau)
    return Decision(allowed, remaining(level_after, cost), retry, seconds(level_after), store)
