# SPDX-License-Identifier: Apache-2.0
"""What differs between two stores. Pure: times are seconds of any steady clock of the one who looks.

A bucket is told by when it is full; the stores' own clocks never meet. While callers go on, the secondary
store is behind by as long as it takes to tell it, so what differs is looked at again (passes.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.migrate.side import Found
from valkyrie.control.cost import UNITS_A_NS

TOLERANCE_S = 0.05  # what a reading takes, and clocks that run unevenly
TTL_TOLERANCE_S = 0.25
EXAMPLES = 5
UNITS_A_S = UNITS_A_NS * 1_000_000_000

Kind = Literal[
    "bucket-behind",  # the secondary store would admit more
    "bucket-ahead",  # it would admit less
    "value-missing",
    "value-differs",
    "value-ttl",
    "value-extra",
    "value-unreadable",  # in the primary store: it cannot be copied
    "document-missing",
    "document-differs",
]


def full_at(level: int, now: float) -> float:
    """When a bucket of this level at `now` is full."""
    return now + level / UNITS_A_S


def level_at(full: float, now: float) -> int:
    return max(0, round((full - now) * UNITS_A_S))


@dataclass(frozen=True, slots=True)
class Reading:
    """A bucket in both stores, looked at one after the other: at the primary and at the secondary."""

    primary: float
    secondary: float


def bucket_differs(first: Reading, then: Reading, now: float, tolerance: float = TOLERANCE_S) -> Kind | None:
    """Judged by two readings with a pause between that is longer than the secondary is told after. TATs
    only rise, so what one store has at last must be at least what the other had at first.
    """
    if min(first.primary, then.primary) > max(then.secondary, now) + tolerance:
        return "bucket-behind"
    if min(first.secondary, then.secondary) > max(then.primary, now) + tolerance:
        return "bucket-ahead"
    return None


def value_differs(primary: Found, at: float, secondary: Found, then: float) -> Kind | None:
    """The value under a key as it was read at two moments."""
    if isinstance(primary, ConsistencyError):
        return "value-unreadable"
    if primary is None or (primary.left_ms is not None and primary.left_ms / 1000 <= then - at):
        extra = secondary is not None and not _dies(secondary)
        return "value-extra" if extra else None
    if secondary is None:
        return None if _dies(primary) else "value-missing"
    if isinstance(secondary, ConsistencyError) or primary.content != secondary.content:
        return "value-differs"
    if (primary.left_ms is None) != (secondary.left_ms is None):
        return "value-ttl"
    if primary.left_ms is not None and secondary.left_ms is not None:
        apart = (at + primary.left_ms / 1000) - (then + secondary.left_ms / 1000)
        return "value-ttl" if abs(apart) > TTL_TOLERANCE_S else None
    return None


def _dies(found: Found) -> bool:
    """It is about to expire, so that one store may have forgotten it already."""
    return (
        not isinstance(found, ConsistencyError | None)
        and found.left_ms is not None
        and found.left_ms / 1000 <= TTL_TOLERANCE_S
    )


@dataclass(slots=True)
class Report:
    """What a comparison found. Numbers of what was compared, and of what differs and a few of it by kind."""

    buckets: int = 0
    values: int = 0
    documents: int = 0
    differences: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    repaired: int = 0

    def differs(self, kind: Kind, what: str) -> None:
        self.differences[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(what[:200])

    @property
    def same(self) -> bool:
        return not self.differences
