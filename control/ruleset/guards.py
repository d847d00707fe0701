# SPDX-License-Identifier: Apache-2.0
"""Protected, exempt and banned sources: a tree for each IP version whose leaves are guard entries.

Where several cover an address, it has what all of them give, each with its latest expiry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.abi import GUARD, MAX_GUARDS
from valkyrie.control.enums import Guard
from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Ban, Desired, Exempt
from valkyrie.control.prefix import canonical_prefix
from valkyrie.control.ruleset.bitmaps import Rows, distinct
from valkyrie.control.ruleset.intervals import ALL, Nest, nest, pack_texts
from valkyrie.control.ruleset.tree import Tree, build, leaf_tree

FLAGS, EXEMPT, BAN = 0, 1, 2  # columns of a row: flags, and expiries in ns of wall time
MAX_WALL_NS = (1 << 63) - 1


@dataclass(frozen=True)
class Guards:
    """Trees over IPv4 and IPv6 whose leaves are indexes of `rows`; row 0 is no guard at all."""

    trees: tuple[Tree, Tree]
    rows: Rows

    @property
    def timed(self) -> bool:
        """Whether some entry expires, so that its table depends on the clocks."""
        until = self.rows[:, [EXEMPT, BAN]]
        return bool(((until != 0) & (until != ALL)).any())


def guards(desired: Desired) -> Guards:
    """The guards of a policy; raises InvalidInput when there are too many different ones."""
    texts = [
        *(canonical_prefix(prefix) for prefix in desired.protects),
        *(entry.prefix for entry in desired.exempts),
        *(entry.prefix for entry in desired.bans),
    ]
    own = _own_rows(desired)
    found: list[Nest | None] = []
    rows = [np.zeros((1, 4), np.uint64)]
    for prefixes, places in pack_texts(texts):
        n = nest(prefixes) if len(prefixes) else None
        found.append(n)
        rows.append(_rows(n, own[places]))
    classes, class_of = distinct(np.concatenate(rows))
    if len(classes) > MAX_GUARDS:
        raise InvalidInput(
            f"{len(classes)} different guards", f"at most {MAX_GUARDS}: use fewer expiry times", "ban"
        )
    # Index 0 must be the row without a guard, the one that went in first: turn the list until it is.
    index = (class_of - class_of[0]) % len(classes)
    four, six = (
        leaf_tree(0) if n is None else build(n.high, n.low, which[n.innermost])
        for n, which in zip(found, np.split(index[1:], [len(rows[1])]), strict=True)
    )
    return Guards((four, six), np.roll(classes, -int(class_of[0]), axis=0))


def guard_table(rows: Rows, *, mono_now_ns: int, wall_now_ns: int) -> NDArray[np.void]:
    """The guards as the packet program reads them: expiries in ns since boot, those past as 0."""
    table: NDArray[Any] = np.zeros(len(rows), GUARD)
    table["flags"] = rows[:, FLAGS]
    for name, column in (("exempt_until", EXEMPT), ("ban_until", BAN)):
        wall = rows[:, column]
        timed = (wall != 0) & (wall != ALL)
        until = wall[timed].astype(np.int64) - wall_now_ns + mono_now_ns
        table[name] = wall
        table[name][timed] = np.maximum(until, 0).astype(np.uint64)
    return table


def _own_rows(desired: Desired) -> Rows:
    """What each entry gives by itself: protects first, then exempts, then bans."""
    counts = (len(desired.protects), len(desired.exempts), len(desired.bans))
    rows = np.zeros((sum(counts), 4), np.uint64)
    rows[:, FLAGS] = np.repeat(np.array([Guard.PROTECT, Guard.EXEMPT, Guard.BAN], np.uint64), counts)
    ban = counts[0] + counts[1]
    rows[counts[0] : ban, EXEMPT] = [_until(entry) for entry in desired.exempts]
    rows[ban:, BAN] = [_until(entry) for entry in desired.bans]
    return rows


def _rows(n: Nest | None, own: Rows) -> Rows:
    """What each distinct prefix has, with what is around it; a last row without anything."""
    rows = np.zeros(((n.count if n else 0) + 1, 4), np.uint64)
    if n is None:
        return rows
    np.bitwise_or.at(rows[:, FLAGS], n.which, own[:, FLAGS])
    for column in (EXEMPT, BAN):
        np.maximum.at(rows[:, column], n.which, own[:, column])
    n.inherit(rows, _both)
    return rows


def _both(inner: Rows, outer: Rows) -> Rows:
    joined = np.maximum(inner, outer)
    joined[:, FLAGS] = inner[:, FLAGS] | outer[:, FLAGS]
    return joined


def _until(entry: Exempt | Ban) -> int:
    return int(ALL) if entry.until is None else int(min(entry.until * 1e9, MAX_WALL_NS))
