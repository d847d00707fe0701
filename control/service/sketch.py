# SPDX-License-Identifier: Apache-2.0
"""Heavy hitters in bounded memory, fed in batches: the counters of Misra and Gries, merged as Agarwal and
others do ("Mergeable summaries", 2012).

At most `size` keys are held. When a batch makes them more, the count of the first that finds no room is
taken from all, and those without any left go. Each such cut takes at least size + 1 times as much from all
counts together, so no count is ever too high, and none is too low by more than `short`, which never
exceeds (all that was added) / (size + 1). Every key above that is held, whatever came between.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Counts = NDArray[np.float64]


def mixed(keys: Words, secret: Words) -> Words:
    """A word for each row of keys, by which they are told apart: (n, width) -> (n,).

    Nobody outside knows `secret`, odd words, one a column; of 5,000 keys two fall together once in 10^12.
    """
    found = np.zeros(len(keys), np.uint64)
    for column, odd in zip(keys.T, secret, strict=True):
        found = (found ^ column) * odd
        found ^= found >> np.uint64(29)
    return found


def odd_words(seed: int, count: int) -> Words:
    """As many as `count`, which nobody knows who does not know the seed of 64 bits."""
    drawn = hashlib.shake_128(seed.to_bytes(8)).digest(8 * count)
    return np.frombuffer(drawn, np.uint64) | np.uint64(1)


class Sketch:
    """Keys are rows of words. `short`: how much too low a count may be."""

    def __init__(self, size: int, secret: Words) -> None:
        self._size = size
        self._secret = secret
        self.keys: Words = np.zeros((0, len(secret)), np.uint64)
        self.counts: Counts = np.zeros(0)
        self.short = 0.0
        self._words: Words = np.zeros(0, np.uint64)

    def add(self, keys: Words, weight: float) -> None:
        """Count each row of `keys` with this weight; rows may repeat."""
        every = np.concatenate([self.keys, keys])
        words = np.concatenate([self._words, mixed(keys, self._secret)])
        weights = np.concatenate([self.counts, np.full(len(keys), weight)])
        self._words, first, which = np.unique(words, return_index=True, return_inverse=True)
        self.keys, self.counts = every[first], np.bincount(which, weights).astype(np.float64)
        if len(first) > self._size:
            self._cut()

    def _cut(self) -> None:
        place = len(self.counts) - self._size - 1
        cut = float(np.partition(self.counts, place)[place])
        self.counts = self.counts - cut
        self.short += cut
        self._keep(self.counts > 0)

    def fade(self, factor: float, least: float) -> None:
        """Multiply all counts; those that fall below `least` go."""
        self.counts = self.counts * factor
        self.short *= factor
        self._keep(self.counts >= least)

    def _keep(self, which: NDArray[Any]) -> None:
        self.keys, self.counts, self._words = self.keys[which], self.counts[which], self._words[which]

    def largest(self, count: int) -> list[tuple[Words, float]]:
        order = np.argsort(-self.counts, kind="stable")[:count]
        return [(self.keys[place], float(self.counts[place])) for place in order]
