# SPDX-License-Identifier: Apache-2.0
"""The address dimensions: a tree for each IP version whose leaves are classes of limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valkyrie.control.ruleset.bitmaps import Rows, bitmap_of, distinct, single_bits
from valkyrie.control.ruleset.intervals import Nest, Prefixes, join_all, nest
from valkyrie.control.ruleset.tree import Tree, build, embedded_leaves, leaf_tree

VERSIONS = (4, 6)


@dataclass(frozen=True)
class Addresses:
    """Trees over IPv4 and IPv6 whose leaves are indexes of `classes`."""

    trees: tuple[Tree, Tree]
    classes: Rows

    @property
    def embedded(self) -> tuple[int, int]:
        """The classes of v4-mapped and of 6to4 addresses, beside that of the IPv4 address inside."""
        return embedded_leaves(self.trees[1])


class Nests:
    """The nests made last: a change of rates or positions leaves the prefixes as they were."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[list[Prefixes], Nest]] = {}

    def of(self, version: int, parts: Sequence[Prefixes]) -> Nest | None:
        """The nest of all the parts together; None if there are none."""
        if not parts:
            return None
        kept = self._kept.get(version)
        if kept is None or [id(part) for part in kept[0]] != [id(part) for part in parts]:
            kept = (list(parts), nest(join_all(version, parts)))
            self._kept[version] = kept
        return kept[1]


def addresses(allowed: Sequence[tuple[Prefixes, Prefixes] | None], nests: Nests) -> Addresses:
    """From the prefixes that the limit at each position allows, by version (None: every address)."""
    open_to_all = bitmap_of(position for position, pair in enumerate(allowed) if pair is None)
    listed = [(position, pair) for position, pair in enumerate(allowed) if pair is not None]
    found: list[Nest | None] = []
    rows: list[Rows] = []
    for index, version in enumerate(VERSIONS):
        parts = [(position, pair[index]) for position, pair in listed if len(pair[index])]
        n = nests.of(version, [part for _, part in parts])
        found.append(n)
        rows.append(_rows(n, parts) | open_to_all)
    classes, class_of = distinct(np.concatenate(rows))
    four, six = (
        # The last row is that of no prefix at all, which an innermost of -1 picks.
        leaf_tree(int(which[-1])) if n is None else build(n.high, n.low, which[n.innermost])
        for n, which in zip(found, np.split(class_of, [len(rows[0])]), strict=True)
    )
    return Addresses((four, six), classes)


def _rows(n: Nest | None, parts: Sequence[tuple[int, Prefixes]]) -> Rows:
    """For each distinct prefix the limits that allow it or one around it; a last row without any."""
    if n is None:
        return np.zeros((1, 4), np.uint64)
    positions = np.repeat([position for position, _ in parts], [len(part) for _, part in parts])
    rows = np.zeros((n.count + 1, 4), np.uint64)
    order = np.argsort(n.which, kind="stable")
    starts = np.searchsorted(n.which[order], np.arange(n.count))
    rows[:-1] = np.bitwise_or.reduceat(single_bits(positions[order]), starts, axis=0)
    n.inherit(rows, np.bitwise_or)
    return rows
