# SPDX-License-Identifier: Apache-2.0
"""What the shared tables are put together from: of each dimension, of the guards, of each limit's overrides.

A part that is made from the same as in the ruleset before is the same object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from valkyrie.control.abi import Dimension
from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Desired, Limit, Override
from valkyrie.control.prefix import Prefix
from valkyrie.control.ruleset.addresses import Addresses, addresses
from valkyrie.control.ruleset.cache import CompileCache, Same
from valkyrie.control.ruleset.constraints import constraints_of
from valkyrie.control.ruleset.fields import PLACE, Field, field
from valkyrie.control.ruleset.guards import Guards, guards
from valkyrie.control.ruleset.intervals import Prefixes, pack
from valkyrie.control.ruleset.plans import Overrides, overrides


@dataclass(frozen=True)
class Parts:
    addresses: Mapping[Dimension, Addresses]
    small: Mapping[Dimension, Field]
    guards: Guards
    overrides: Mapping[str, Overrides]


def parts_of(
    desired: Desired, limits: Sequence[Limit], nic_slots: Mapping[str, int], cpus: int, cache: CompileCache
) -> Parts:
    """Of the limits at each position. Raises InvalidInput when the policy contradicts itself."""
    return Parts(
        _address_dimensions(limits, cache),
        _small_dimensions(limits, dict(nic_slots), cache),
        cache.get(("guards",), _guards_key(desired), partial(guards, desired)),
        _override_parts(desired, limits, cpus, cache),
    )


def _address_dimensions(limits: Sequence[Limit], cache: CompileCache) -> dict[Dimension, Addresses]:
    """Source and destination, if some limit constrains them."""
    found = {}
    for dimension in (Dimension.SRC, Dimension.DST):
        name = dimension.name.lower()
        listed: tuple[tuple[Prefix, ...], ...] = tuple(getattr(limit.matcher, name) for limit in limits)
        if not any(listed):
            continue
        packed = [
            cache.get((f"packed {name}", limit.name), prefixes, partial(_pack_both, prefixes))
            if prefixes
            else None
            for limit, prefixes in zip(limits, listed, strict=True)
        ]
        found[dimension] = cache.get((name,), listed, partial(addresses, packed, cache.nests(name)))
    return found


def _pack_both(prefixes: Sequence[Prefix]) -> tuple[Prefixes, Prefixes]:
    return pack(prefixes, 4), pack(prefixes, 6)


def _small_dimensions(
    limits: Sequence[Limit], nic_slots: dict[str, int], cache: CompileCache
) -> dict[Dimension, Field]:
    """The other dimensions that some limit constrains."""
    constraints = [
        cache.get(
            ("constraints", limit.name),
            (limit.match, nic_slots),
            partial(constraints_of, limit.matcher, nic_slots),
        )
        for limit in limits
    ]
    found = {}
    for dimension in PLACE:
        allowed = tuple(each.get(dimension) for each in constraints)
        if any(ranges is not None for ranges in allowed):
            found[dimension] = cache.get((dimension.name,), allowed, partial(field, dimension, allowed))
    return found


def _guards_key(desired: Desired) -> object:
    return (desired.protects, desired.exempts, desired.bans)


def _override_parts(
    desired: Desired, limits: Sequence[Limit], cpus: int, cache: CompileCache
) -> dict[str, Overrides]:
    """Of each limit that has any."""
    grouped = cache.get(
        ("overrides by limit",), Same(desired.overrides), partial(_by_limit, desired.overrides)
    )
    unknown = grouped.keys() - {limit.name for limit in limits}
    if unknown:
        what = f"overrides for limit {min(unknown)!r}, which does not exist"
        raise InvalidInput(what, "set the limit first", "limit")
    return {
        limit.name: cache.get(
            ("overrides", limit.name),
            (limit.key, limit.measure, cpus, grouped[limit.name]),
            partial(overrides, limit, grouped[limit.name], cpus),
        )
        for limit in limits
        if limit.name in grouped
    }


def _by_limit(entries: Sequence[Override]) -> dict[str, list[Override]]:
    grouped: dict[str, list[Override]] = {}
    for entry in entries:
        grouped.setdefault(entry.limit, []).append(entry)
    return grouped
