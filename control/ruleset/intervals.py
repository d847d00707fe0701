# SPDX-License-Identifier: Apache-2.0
"""From prefixes, nested however they are, to the intervals that they cut the address space into.

Prefixes either contain one another or are disjoint, so at every address those that cover it form a chain
from the widest to the narrowest. `Nest` holds the narrowest of each interval, and of each prefix the next
wider one: enough for the longest prefix, and for anything that accumulates along the chain.

Addresses are pairs (high, low) of 64-bit words. An IPv4 address is (address, 0) here and its unit is one
step of the high word, so that both versions are searched alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.prefix import Prefix
from valkyrie.control.ruleset.bitmaps import Indexes

Words = NDArray[np.uint64]
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_64 = np.uint64(64)


@dataclass(frozen=True)
class Prefixes:
    """Prefixes of one IP version, as arrays of one length. `high` and `low` are the first address."""

    version: int
    high: Words
    low: Words
    length: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.length)


@dataclass(frozen=True)
class Nest:
    """`which` maps each prefix given to a distinct one; distinct ones are sorted, wider before narrower.

    Interval i starts at (high[i], low[i]) and ends before the next; `innermost[i]` is the narrowest
    distinct prefix there, or -1. `levels[d]` are the distinct prefixes inside d others, and `parents[d]`
    the next wider one of each.
    """

    count: int
    which: Indexes
    high: Words
    low: Words
    innermost: Indexes
    levels: tuple[Indexes, ...]
    parents: tuple[Indexes, ...]

    def inherit(self, values: NDArray[Any], join: Callable[[Any, Any], Any]) -> None:
        """Make each distinct prefix's value join(its own, that of all around it), in place."""
        for inner, outer in zip(self.levels[1:], self.parents[1:], strict=True):
            values[inner] = join(values[inner], values[outer])


def pack(prefixes: Sequence[Prefix], version: int) -> Prefixes:
    """The prefixes of one version as arrays."""
    ours = [prefix for prefix in prefixes if prefix.version == version]
    return _packed(version, [prefix.packed for prefix in ours], [prefix.length for prefix in ours])


def pack_texts(texts: Sequence[str]) -> tuple[tuple[Prefixes, Indexes], tuple[Prefixes, Indexes]]:
    """Canonical texts as arrays, by IP version, each with the places of its prefixes among the texts.

    They were checked when they were made canonical; 100,000 of them are not checked again.
    """
    is_six = np.array([":" in text for text in texts], np.bool_)
    places = (np.flatnonzero(~is_six), np.flatnonzero(is_six))
    parts = []
    for version, family, where in ((4, AF_INET, places[0]), (6, AF_INET6, places[1])):
        ours = [texts[place] for place in where.tolist()]
        # Slices rather than pairs: a container for each of so many wakes the garbage collector.
        addresses = [inet_pton(family, text[: text.index("/")]) for text in ours]
        parts.append(_packed(version, addresses, [int(text[text.index("/") + 1 :]) for text in ours]))
    four, six = parts
    return (four, places[0]), (six, places[1])


def _packed(version: int, addresses: Sequence[bytes], lengths: Sequence[int]) -> Prefixes:
    length = np.array(lengths, np.uint8)
    octets = b"".join(addresses)
    if version == 4:
        high = np.frombuffer(octets, ">u4").astype(np.uint64)
        return Prefixes(4, high, np.zeros(len(high), np.uint64), length)
    words = np.frombuffer(octets, ">u8").reshape(-1, 2).astype(np.uint64)
    return Prefixes(6, words[:, 0].copy(), words[:, 1].copy(), length)


def join_all(version: int, parts: Sequence[Prefixes]) -> Prefixes:
    """One set of all the prefixes, in the order given."""
    if not parts:
        return pack((), version)
    columns = zip(*((part.high, part.low, part.length) for part in parts), strict=True)
    high, low, length = (np.concatenate(column) for column in columns)
    return Prefixes(version, high, low, length)


def nest(prefixes: Prefixes) -> Nest:
    """The nest of at least one prefix, given in any order and as often as one likes."""
    order, first = _distinct(prefixes)
    which = np.empty(len(prefixes), np.int64)
    which[order] = np.cumsum(first) - 1
    kept = order[first]
    high, low, length = prefixes.high[kept], prefixes.low[kept], prefixes.length[kept]
    end_high, end_low, endless = _ends(prefixes.version, high, low, length)
    points_high, points_low, start, end = _rank(high, low, end_high, end_low)
    points = len(points_high)
    opened = np.cumsum(np.bincount(start, minlength=points))
    closed = np.cumsum(np.bincount(end[~endless], minlength=points))
    depth = np.arange(len(kept)) - closed[start]
    depth_at = opened - closed
    innermost = np.full(points, -1, np.int64)
    levels: list[Indexes] = []
    parents: list[Indexes] = []
    for d in range(int(depth.max()) + 1):
        level = np.flatnonzero(depth == d)
        parents.append(levels[-1][np.searchsorted(levels[-1], level) - 1] if levels else level)
        levels.append(level)
        # The chain at an address is, at each depth, the prefix of that depth that opened last.
        here = np.flatnonzero(depth_at == d + 1)
        innermost[here] = level[np.searchsorted(level, opened[here]) - 1]
    return Nest(len(kept), which, points_high, points_low, innermost, tuple(levels), tuple(parents))


def _distinct(prefixes: Prefixes) -> tuple[Indexes, NDArray[np.bool_]]:
    """An order by first address and then length, and in that order which are the first of their like."""
    high, low, length = prefixes.high, prefixes.low, prefixes.length
    if prefixes.version == 4:
        combined = high << np.uint64(6) | length
        order = np.argsort(combined, kind="stable")
        ordered = combined[order]
        return order, np.concatenate(([True], ordered[1:] != ordered[:-1]))
    keys = (length, low, high) if low.any() else (length, high)
    order = np.lexsort(keys)
    first = np.ones(len(order), np.bool_)
    first[1:] = False
    for key in keys:
        ordered = key[order]
        first[1:] |= ordered[1:] != ordered[:-1]
    return order, first


def _ends(
    version: int, high: Words, low: Words, length: NDArray[np.uint8]
) -> tuple[Words, Words, NDArray[np.bool_]]:
    """The first address after each prefix; where the third is set, the prefix lasts to the end of all."""
    bits = length.astype(np.uint64)
    if version == 4:
        end = high + (np.uint64(1) << (np.uint64(32) - bits))
        endless = end >= np.uint64(1) << np.uint64(32)
        return np.where(endless, np.uint64(0), end), np.zeros_like(low), endless
    wide = bits <= _64
    # A shift by 64 is undefined: /0 and /64 of a word are the two ends, handled by the masked amounts.
    step_high = np.where(
        bits == 0, np.uint64(0), np.uint64(1) << (_64 - np.maximum(np.minimum(bits, _64), 1))
    )
    step_low = np.uint64(1) << (np.uint64(128) - np.maximum(bits, np.uint64(65)))
    end_low = np.where(wide, low, low + step_low)
    carry = ~wide & (end_low == 0)
    end_high = np.where(wide, high + step_high, high + carry.astype(np.uint64))
    return end_high, end_low, (end_high == 0) & (end_low == 0)


def _rank(high: Words, low: Words, end_high: Words, end_low: Words) -> tuple[Words, Words, Indexes, Indexes]:
    """Starts, ends and address 0 in order without repetition; and where each start and end is among them."""
    zero = np.zeros(1, np.uint64)
    count = len(high)
    all_high = np.concatenate((zero, high, end_high))
    if not (low.any() or end_low.any()):
        points, place = np.unique(all_high, return_inverse=True)
        return points, np.zeros_like(points), place[1 : count + 1], place[count + 1 :]
    all_low = np.concatenate((zero, low, end_low))
    order = np.lexsort((all_low, all_high))
    sorted_high, sorted_low = all_high[order], all_low[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (sorted_high[1:] != sorted_high[:-1]) | (sorted_low[1:] != sorted_low[:-1])
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(new) - 1
    return sorted_high[new], sorted_low[new], place[1 : count + 1], place[count + 1 :]
