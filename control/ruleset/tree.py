# SPDX-License-Identifier: Apache-2.0
"""Search trees over interval starts, laid out as struct node of bpf/abi.h.

A tree is searched by the high word of the address; where one high word has several intervals, a reference
marked REF_LOW leads to a subtree that is searched by the low word. IPv4 has no low word (see intervals.py).
Trees are built bottom up, eight entries a node, all subtrees of a level at once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.abi import NODE, NODE_CHILDREN, REF_LEAF, REF_LOW, REF_MASK, TREE_DEPTH
from valkyrie.control.prefix import MAPPED, SIX_TO_FOUR
from valkyrie.control.ruleset.bitmaps import Indexes
from valkyrie.control.ruleset.intervals import ALL, Words

Refs = NDArray[np.uint32]
Nodes = NDArray[np.void]  # of abi.NODE
LEAF = np.uint32(REF_LEAF)
EMBEDDED_IN = tuple(struct.unpack(">QQ", begin.ljust(16, b"\0")) for begin in (MAPPED, SIX_TO_FOUR))
"""The high and low words of the first address of each kind, in the order of Embedding."""


@dataclass(frozen=True)
class Tree:
    """`nodes` refer to one another from 0 on, and hold leaf values as they were given; see `placed`."""

    nodes: Nodes
    root: int

    def placed(self, node_base: int, leaf_base: int, *, keep_zero: bool = False) -> Tree:
        """The same tree, its nodes standing from `node_base` on and its leaf values raised by `leaf_base`.

        With `keep_zero` the leaf value 0, which means "none", stays 0.
        """
        refs = np.append(self.nodes["child"].reshape(-1), np.uint32(self.root))
        kept = (refs == LEAF) & keep_zero
        refs += np.where(refs & LEAF, np.where(kept, 0, leaf_base), node_base).astype(np.uint32)
        nodes = self.nodes.copy()
        nodes["child"] = refs[:-1].reshape(-1, NODE_CHILDREN)
        return Tree(nodes, int(refs[-1]))


def leaf_tree(value: int) -> Tree:
    """A tree in which every address has this value."""
    return Tree(np.zeros(0, NODE), REF_LEAF | value)


def build(high: Words, low: Words, values: Indexes) -> Tree:
    """The tree of intervals that start, ascending, at (high, low), the first at (0, 0)."""
    new = np.ones(len(values), np.bool_)
    new[1:] = values[1:] != values[:-1]
    high, low, refs = high[new], low[new], values[new].astype(np.uint32) | LEAF
    pool: list[Nodes] = []
    if low.any():
        high, refs = _build_low(pool, *_open_high_words(high, low, refs))
    root = int(_pack(pool, high, refs, np.zeros(len(refs), np.int64))[0])
    return Tree(np.concatenate(pool) if pool else np.zeros(0, NODE), root)


def lookup(nodes: Nodes, root: int, high: int, low: int) -> int:
    """What the packet program's search finds, step by step as it does: for tests and for explaining."""
    ref, key = root, high
    for _ in range(TREE_DEPTH):
        if ref & REF_LEAF:
            return ref & ~REF_LEAF
        if ref & REF_LOW:
            key = low
        node = nodes[ref & REF_MASK]
        ref = int(node["child"][int((node["key"] <= np.uint64(key)).sum())])
    if not ref & REF_LEAF:
        raise ValueError(f"a tree deeper than {TREE_DEPTH} nodes")
    return ref & ~REF_LEAF


def embedded_leaves(six: Tree) -> tuple[int, int]:
    """What an IPv6 tree says of v4-mapped and of 6to4 addresses: of all alike, as no prefix lies inside."""
    mapped, six_to_four = (lookup(six.nodes, six.root, high, low) for high, low in EMBEDDED_IN)
    return mapped, six_to_four


def _open_high_words(high: Words, low: Words, refs: Refs) -> tuple[Words, Words, Refs]:
    """Add the entries that make each high word either one whole entry or a complete list from low 0 on."""
    first = np.ones(len(high), np.bool_)
    first[1:] = high[1:] != high[:-1]
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(high))
    split = (ends - starts > 1) | (low[starts] != 0)
    begin = starts[split & (low[starts] != 0)]  # the interval before reaches into this word
    last = ends[split] - 1
    follower = np.append(high, np.uint64(0))[last + 1]  # behind the last word there is 0 again
    after = last[follower != high[last] + np.uint64(1)]
    # Where both go before one entry, the smaller address must come first: that of `after`.
    where = np.concatenate((after + 1, begin))
    added_high = np.concatenate((high[after] + np.uint64(1), high[begin]))
    added_refs = np.concatenate((refs[after], refs[begin - 1]))
    return (
        np.insert(high, where, added_high),
        np.insert(low, where, np.uint64(0)),
        np.insert(refs, where, added_refs),
    )


def _build_low(pool: list[Nodes], high: Words, low: Words, refs: Refs) -> tuple[Words, Refs]:
    """One entry for each high word: what it had, or a reference to its subtree over the low word."""
    first = np.ones(len(high), np.bool_)
    first[1:] = high[1:] != high[:-1]
    word = np.cumsum(first) - 1
    packed = _pack(pool, low, refs, word)
    packed[packed & LEAF == 0] |= np.uint32(REF_LOW)
    return high[first], packed


def _pack(pool: list[Nodes], keys: Words, refs: Refs, tree: Indexes) -> Refs:
    """The roots of many trees, one after the other in the entries; `tree` rises by one where the next begins.

    Nodes are appended to `pool`, numbered on from those that are there. A tree of one entry is that entry.
    """
    roots = np.zeros(int(tree[-1]) + 1, np.uint32)
    base = sum(len(nodes) for nodes in pool)
    while True:
        sizes = np.bincount(tree, minlength=len(roots))
        single = sizes[tree] == 1
        roots[tree[single]] = refs[single]
        keys, refs, tree = keys[~single], refs[~single], tree[~single]
        if not len(tree):
            return roots
        start = np.cumsum(sizes * (sizes > 1)) - sizes
        slot = (np.arange(len(tree)) - start[tree]) % NODE_CHILDREN
        nodes = _fill(keys, refs, slot)
        pool.append(nodes)
        new = slot == 0
        keys, tree = keys[new], tree[new]
        refs = (np.arange(len(nodes)) + base).astype(np.uint32)
        base += len(nodes)


def _fill(keys: Words, refs: Refs, slot: Indexes) -> Nodes:
    """Nodes of entries that stand one after the other; a new one begins at each slot 0."""
    new = slot == 0
    node = np.cumsum(new) - 1
    nodes: NDArray[Any] = np.zeros(int(node[-1]) + 1, NODE)
    last = np.append(np.flatnonzero(new)[1:], len(slot)) - 1
    # Unused keys are ~0 and so reached by address ~0 alone, which must find the last child.
    nodes["key"] = ALL
    nodes["child"] = refs[last][:, None]
    nodes["child"][node, slot] = refs
    inner = ~new
    nodes["key"][node[inner], slot[inner] - 1] = keys[inner]
    return nodes
