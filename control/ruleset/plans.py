# SPDX-License-Identifier: Apache-2.0
"""Plans: what a token costs and how deep the bucket is, for limits and for their overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.abi import PLAN
from valkyrie.control.cost import Cost, lease_of
from valkyrie.control.enums import Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import KeySpec
from valkyrie.control.limits import MEASURES, Limit, Override
from valkyrie.control.prefix import Prefix, parse_prefix
from valkyrie.control.ruleset.intervals import nest, pack
from valkyrie.control.ruleset.tree import Tree, build, leaf_tree

PlanRow = tuple[int, int, int, int, int]  # the fields of abi.PLAN


@dataclass(frozen=True)
class Overrides:
    """Of one limit: trees over IPv4 and IPv6 whose leaves are 0 (none) or 1 + an index of `plans`."""

    trees: tuple[Tree, Tree]
    plans: NDArray[np.void]


def plan_row(cost: Cost, measure: Measure, key: KeySpec, cpus: int) -> PlanRow:
    """A plan; with a lease where several CPUs are at one bucket at once."""
    batch = lease_of(cost, measure, cpus) if key.is_shared else 0
    return (cost.mult, cost.tau, batch, cost.shift, 0)


def overrides_by_source(key: KeySpec) -> bool:
    """Overrides go by source where the key has one, else by destination."""
    return key.src4 is not None


def overrides(limit: Limit, entries: Sequence[Override], cpus: int) -> Overrides:
    """The overrides of a limit; raises InvalidInput for those that do not fit its key or its measure."""
    key = limit.key_spec
    lengths = (key.src4, key.src6) if overrides_by_source(key) else (key.dst4, key.dst6)
    prefixes = [parse_prefix(entry.prefix) for entry in entries]
    for entry, prefix in zip(entries, prefixes, strict=True):
        _check(limit, entry, prefix, lengths[prefix.version == 6])
    index: dict[PlanRow, int] = {}
    priced: dict[tuple[str, str | None], int] = {}
    measure = MEASURES[limit.measure]
    numbers = np.empty(len(entries), np.int64)
    for place, entry in enumerate(entries):
        price = (entry.rate, entry.burst)
        if price not in priced:
            row = plan_row(_cost(entry, measure), measure, key, cpus)
            priced[price] = index.setdefault(row, len(index) + 1)
        numbers[place] = priced[price]
    four, six = (_tree(prefixes, numbers, version) for version in (4, 6))
    return Overrides((four, six), np.array(list(index), PLAN))


def _tree(prefixes: Sequence[Prefix], numbers: NDArray[np.int64], version: int) -> Tree:
    ours = np.array([prefix.version == version for prefix in prefixes], np.bool_)
    if not ours.any():
        return leaf_tree(0)
    n = nest(pack(prefixes, version))
    values = np.zeros(n.count + 1, np.int64)  # the last is "none", which an innermost of -1 picks
    values[n.which] = numbers[ours]
    return build(n.high, n.low, values[n.innermost])


def _check(limit: Limit, entry: Override, prefix: Prefix, length: int | None) -> None:
    if length is None:
        raise InvalidInput(
            f"limit {limit.name} cannot have overrides: its key {limit.key} has no address",
            "choose a key with src or dst",
            entry.prefix,
        )
    if prefix.length > length:
        raise InvalidInput(
            f"override {entry.prefix} of limit {limit.name} is narrower than its key, a /{length}",
            f"a prefix of at most /{length}, or another key than {limit.key}",
            entry.prefix,
        )


def _cost(entry: Override, measure: Measure) -> Cost:
    try:
        return entry.cost(measure)
    except InvalidInput as error:
        raise InvalidInput(
            f"override {entry.prefix} of limit {entry.limit}: {error.what}", error.hint, entry.prefix
        ) from None
