# SPDX-License-Identifier: Apache-2.0
"""Putting the parts into the tables that they share, each from an index of its own on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.enums import Dimension
from valkyrie.control.errors import InvalidInput
from valkyrie.control.ruleset.bitmaps import Rows
from valkyrie.control.ruleset.fields import PLACE, Field
from valkyrie.control.ruleset.tree import Tree

Array = NDArray[np.void]
FEWER = "fewer prefixes, or fewer limits with prefixes of their own"


def bases(sizes: Sequence[int], start: int) -> list[int]:
    """Where each part begins, and at the end where the next would."""
    return list(accumulate(sizes, initial=start))


def class_table(parts: Sequence[Rows]) -> tuple[Array, list[int]]:
    """The bitmaps of all dimensions, and where those of each begin."""
    begin = bases([len(part) for part in parts], 0)
    if begin[-1] > abi.MAX_CLASSES:
        what = f"the prefixes of the limits overlap in {begin[-1]} different ways"
        raise InvalidInput(what, f"at most {abi.MAX_CLASSES}: {FEWER}", "match")
    rows = np.concatenate([np.zeros((0, abi.BITMAP_WORDS), np.uint64), *parts])
    return np.ascontiguousarray(rows).view(abi.BITMAP).reshape(-1), begin


def field_table(small: Mapping[Dimension, Field], begin: Sequence[int]) -> Array:
    """Classes of every value of every small dimension; those that no limit constrains are not read."""
    flat = np.zeros(abi.FIELDS, np.uint16)
    for (dimension, field), base in zip(small.items(), begin, strict=False):
        offset, size = PLACE[dimension]
        flat[offset : offset + size] = field.class_of + base
    return flat.view(abi.FIELD_BLOCK)


@dataclass(frozen=True)
class Planting:
    """A tree, what its leaf values are raised by, and whether the value 0 is none of them and stays."""

    tree: Tree
    leaf_base: int
    keep_zero: bool


def node_table(trees: Sequence[Planting], max_nodes: int) -> tuple[Array, list[int]]:
    """All the trees in one table, and the reference to each root."""
    begin = bases([len(each.tree.nodes) for each in trees], 1)  # node 0 is never referred to
    if begin[-1] > max_nodes:
        raise InvalidInput(
            f"the prefixes need {begin[-1]} tree nodes, the tables have room for {max_nodes}",
            "fewer prefixes longer than /64, or a build with more nodes",
            "match",
        )
    placed = [
        each.tree.placed(base, each.leaf_base, keep_zero=each.keep_zero)
        for each, base in zip(trees, begin, strict=False)
    ]
    nodes = np.concatenate([np.zeros(1, abi.NODE), *(tree.nodes for tree in placed)])
    return nodes, [tree.root for tree in placed]


def plan_table(parts: Sequence[Array]) -> tuple[Array, list[int]]:
    """The plans of all overrides, and where those of each limit begin."""
    begin = bases([len(part) for part in parts], 1)  # plan 0 is "no override"
    if begin[-1] > abi.MAX_PLANS:
        raise InvalidInput(
            f"{begin[-1]} different plans in overrides",
            f"at most {abi.MAX_PLANS}: share some rates",
            "overrides",
        )
    plans: NDArray[Any] = np.concatenate([np.zeros(1, abi.PLAN), *parts])
    return plans, begin
