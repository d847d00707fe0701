# SPDX-License-Identifier: Apache-2.0
"""Plans: what a token costs and how deep the bucket is, for limits and for their overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.abi import PLAN
from valkyrie.control.cost import Cost, lease_of
from valkyrie.control.enums import Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import KeySpec
from valkyrie.control.limits import MEASURES, Limit, Override
from valkyrie.control.ruleset.intervals import Prefixes, nest, pack_texts
from valkyrie.control.ruleset.tree import Tree, build, embedded_leaves, leaf_tree

PlanRow = tuple[int, int, int, int, int]  # the fields of abi.PLAN


@dataclass(frozen=True)
class Overrides:
    """Of one limit: trees over IPv4 and IPv6 whose leaves are 0 (none) or 1 + an index of `plans`.

    IPv4 leaves may be marked PLAN_EMBEDDED (bpf/abi.h); then two plans follow, and one of zeros is none.
    """

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
    key, measure = limit.key_spec, MEASURES[limit.measure]
    if key.src4 is None and key.dst4 is None:
        what = f"limit {limit.name} cannot have overrides: its key {limit.key} has no address"
        raise InvalidInput(what, "choose a key with src or dst", entries[0].prefix)
    rows: dict[PlanRow, int] = {}
    number_of: dict[tuple[str, str | None], int] = {}
    for entry in entries:
        price = (entry.rate, entry.burst)
        if price not in number_of:
            row = plan_row(_cost(entry, measure), measure, key, cpus)
            number_of[price] = rows.setdefault(row, len(rows) + 1)
    numbers = np.array([number_of[entry.rate, entry.burst] for entry in entries], np.int64)
    lengths = (key.src4, key.src6) if overrides_by_source(key) else (key.dst4, key.dst6)
    packed = pack_texts([entry.prefix for entry in entries])
    for length, (prefixes, places) in zip(lengths, packed, strict=True):
        for narrow in np.flatnonzero(prefixes.length > (length or 0)):
            raise _too_narrow(limit, entries[int(places[narrow])], length)
    (four, four_places), (six, six_places) = packed
    plans = np.array(list(rows), PLAN)
    six_tree = _tree(six, numbers[six_places], 0)
    around = embedded_leaves(six_tree)
    none = abi.PLAN_EMBEDDED | len(plans) + 1 if any(around) else 0
    four_tree = _tree(four, numbers[four_places], none)
    if none:
        plans = np.concatenate([plans, np.concatenate([np.zeros(1, PLAN), plans])[list(around)]])
    return Overrides((four_tree, six_tree), plans)


def _tree(prefixes: Prefixes, numbers: NDArray[np.int64], none: int) -> Tree:
    if not len(prefixes):
        return leaf_tree(none)
    n = nest(prefixes)
    values = np.full(n.count + 1, none, np.int64)  # the last is what an innermost of -1 picks
    values[n.which] = numbers
    return build(n.high, n.low, values[n.innermost])


def _too_narrow(limit: Limit, entry: Override, length: int | None) -> InvalidInput:
    what = f"override {entry.prefix} of limit {limit.name} is narrower than its key, a /{length}"
    return InvalidInput(what, f"a prefix of at most /{length}, or another key than {limit.key}", entry.prefix)


def _cost(entry: Override, measure: Measure) -> Cost:
    try:
        return entry.cost(measure)
    except InvalidInput as error:
        raise InvalidInput(
            f"override {entry.prefix} of limit {entry.limit}: {error.what}", error.hint, entry.prefix
        ) from None
