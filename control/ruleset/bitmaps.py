# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of limits, four 64-bit words each, and the distinct ones among many: the classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.abi import BITMAP_WORDS

Rows = NDArray[np.uint64]  # shape (n, BITMAP_WORDS)
Indexes = NDArray[np.int64]

# Of splitmix64's finalizer; a collision of digests is found and costs only time.
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


def bitmap_of(positions: Iterable[int]) -> NDArray[np.uint64]:
    """One bitmap, shape (BITMAP_WORDS,), with the bits of these limits."""
    whole = sum(1 << position for position in set(positions))
    words = [whole >> 64 * word & 0xFFFFFFFFFFFFFFFF for word in range(BITMAP_WORDS)]
    return np.array(words, dtype=np.uint64)


def single_bits(positions: NDArray[Any]) -> Rows:
    """A row for each entry, with the bit of that limit alone."""
    rows = np.zeros((len(positions), BITMAP_WORDS), np.uint64)
    where = positions.astype(np.uint64)
    rows[np.arange(len(rows)), (where >> np.uint64(6)).astype(np.intp)] = np.uint64(1) << (
        where & np.uint64(63)
    )
    return rows


def distinct(rows: Rows) -> tuple[Rows, Indexes]:
    """The distinct rows, and for each row the index of its like among them."""
    digest = np.zeros(len(rows), np.uint64)
    for word in range(BITMAP_WORDS):
        digest = _mixed(digest + _STEP ^ rows[:, word])
    _, first, which = np.unique(digest, return_index=True, return_inverse=True)
    found: Rows = rows[first]
    if not np.array_equal(found[which], rows):
        found, which = np.unique(rows, axis=0, return_inverse=True)
    return found, which.reshape(-1).astype(np.int64)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each word replaced by another that depends on all its bits, reversibly."""
    first, second = _MULTIPLIERS
    words = (words ^ words >> np.uint64(30)) * first
    words = (words ^ words >> np.uint64(27)) * second
    return words ^ words >> np.uint64(31)
