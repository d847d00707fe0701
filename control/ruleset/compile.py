# SPDX-License-Identifier: Apache-2.0
"""The compiler: from what people decided to the arrays that the packet program reads. Pure.

Each array holds one generation of a map, trimmed to what is used, with indexes that count from the
generation's first entry. An array that is as in the ruleset before is the same object, if a cache is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.abi import Dimension
from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Desired, Limit
from valkyrie.control.ruleset.assemble import (
    Array,
    Planting,
    class_table,
    field_table,
    node_table,
    plan_table,
)
from valkyrie.control.ruleset.cache import CompileCache, Same
from valkyrie.control.ruleset.guards import guard_table
from valkyrie.control.ruleset.limit_table import limit_row
from valkyrie.control.ruleset.parts import Parts, parts_of
from valkyrie.control.ruleset.tree import Tree

__all__ = ["CompileCache", "CompiledRuleset", "RulesetSettings", "SlotUid", "compile_ruleset", "in_order"]

MAX_PREFIXES = 100_000  # in matches and guards together
MAX_OVERRIDES = 100_000
NO_TREE = abi.REF_LEAF


class SlotUid(NamedTuple):
    """Of a limit: the slot of its counters, and the number that its buckets carry."""

    slot: int
    uid: int


NOBODY = SlotUid(0, 0)
"""What observers have: they count nothing and make no buckets."""


@dataclass(frozen=True)
class RulesetSettings:
    malformed_drop: bool = True
    table_full_open: bool = False
    event_sample: int = 1
    event_rate: int = 1000
    max_nodes: int = abi.MAX_NODES  # of the build


@dataclass(frozen=True)
class CompiledRuleset:
    """`header` is one abi.RULESET; `fields` has an entry a block; `order` names limits by position."""

    header: np.void
    limits: Array
    plans: Array
    nodes: Array
    classes: Array
    fields: Array
    guards: Array
    order: list[str]


def in_order(limits: Sequence[Limit]) -> list[Limit]:
    """Limits by position: those with one bucket for all first, then by name; last those for calls alone."""
    return sorted(limits, key=lambda limit: (limit.key_spec.id, not limit.key_spec.is_global, limit.name))


def compile_ruleset(
    desired: Desired,
    *,
    slots: Mapping[str, SlotUid],
    nic_slots: Mapping[str, int],
    cpus: int,
    settings: RulesetSettings,
    serial: int,
    mono_now_ns: int,
    wall_now_ns: int,
    cache: CompileCache | None = None,
    observers: Mapping[int, Limit] | None = None,
) -> CompiledRuleset:
    """Raises InvalidInput when the policy contradicts itself or does not fit the tables.

    `observers` only report what they match, each to the observation of its place. Where limits leave no room
    they see nothing.
    """
    cache = CompileCache() if cache is None else cache
    _check_sizes(desired)
    room = abi.MAX_LIMITS - len(desired.limits)
    watching = {_observer_name(place): place for place in sorted(observers or {})[:room]}
    declared = in_order(desired.limits)
    policed = sum(not limit.key_spec.id for limit in declared)
    seeing = [_named((observers or {})[place], name) for name, place in watching.items()]
    limits = [*declared[:policed], *seeing, *declared[policed:]]
    parts = parts_of(desired, limits, nic_slots, cpus, cache)
    classes, class_begin = _classes(parts, cache)
    fields = _fields(parts, class_begin, cache)
    plans, plan_begin = _plans(parts, cache)
    nodes, roots = _nodes(parts, class_begin, plan_begin, settings.max_nodes, cache)
    rows = [
        limit_row(
            limit,
            slot=NOBODY.slot if limit.name in watching else slots[limit.name].slot,
            uid=NOBODY.uid if limit.name in watching else slots[limit.name].uid,
            cpus=cpus,
            override_roots=roots.get(limit.name, (NO_TREE, NO_TREE)),
        )
        for limit in limits
    ]
    table = np.array(rows, abi.LIMIT)
    table["action"][policed : policed + len(watching)] = abi.Action.OBSERVE
    table["ban_ns"][policed : policed + len(watching)] = list(watching.values())
    clocks = (mono_now_ns, wall_now_ns) if parts.guards.timed else None
    guard_rows = partial(guard_table, parts.guards.rows, mono_now_ns=mono_now_ns, wall_now_ns=wall_now_ns)
    cache.forget({limit.name for limit in limits})
    return CompiledRuleset(
        header=_header(limits, len(watching), parts, class_begin, roots, settings, serial),
        limits=table,
        plans=plans,
        nodes=nodes,
        classes=classes,
        fields=fields,
        guards=cache.get(("guard table",), (Same(parts.guards), clocks), guard_rows),
        order=[limit.name for limit in limits],
    )


def _check_sizes(desired: Desired) -> None:
    if len(desired.limits) > abi.MAX_LIMITS:
        raise InvalidInput(f"{len(desired.limits)} limits", f"at most {abi.MAX_LIMITS}", "limits")
    listed = sum(len(limit.matcher.src) + len(limit.matcher.dst) for limit in desired.limits)
    count = listed + len(desired.exempts) + len(desired.bans) + len(desired.protects)
    if count > MAX_PREFIXES:
        raise InvalidInput(
            f"{count} prefixes in matches, exemptions and bans", f"at most {MAX_PREFIXES}", "match"
        )
    if len(desired.overrides) > MAX_OVERRIDES:
        raise InvalidInput(f"{len(desired.overrides)} overrides", f"at most {MAX_OVERRIDES}", "overrides")


def _classes(parts: Parts, cache: CompileCache) -> tuple[Array, dict[Dimension, int]]:
    """Addresses first: then a change of the small dimensions moves none of the many leaves in trees."""
    dimensions = [*parts.addresses, *parts.small]
    rows = [part.classes for part in parts.addresses.values()]
    rows += [part.classes for part in parts.small.values()]
    table, begin = cache.get(("classes",), Same(*rows), partial(class_table, rows))
    return table, dict(zip(dimensions, begin, strict=False))


def _fields(parts: Parts, class_begin: Mapping[Dimension, int], cache: CompileCache) -> Array:
    begin = [class_begin[dimension] for dimension in parts.small]
    made_from = (Same(*parts.small.values()), begin)
    return cache.get(("fields",), made_from, partial(field_table, parts.small, begin))


def _plans(parts: Parts, cache: CompileCache) -> tuple[Array, list[int]]:
    rows = [part.plans for part in parts.overrides.values()]
    return cache.get(("plans",), Same(*rows), partial(plan_table, rows))


def _nodes(
    parts: Parts,
    class_begin: Mapping[Dimension, int],
    plan_begin: Sequence[int],
    max_nodes: int,
    cache: CompileCache,
) -> tuple[Array, dict[str, tuple[int, int]]]:
    """All trees in one table, and by name the IPv4 and IPv6 root of each pair of trees.

    Overrides are named as their limit; a limit's name begins with no slash.
    """
    groups: dict[str, tuple[Planting, ...]] = {"/guards": _planted(parts.guards.trees, 0)}
    for dimension, part in parts.addresses.items():
        groups[f"/{dimension.name}"] = _planted(part.trees, class_begin[dimension])
    for (name, found), begin in zip(parts.overrides.items(), plan_begin, strict=False):
        groups[name] = _planted(found.trees, begin - 1, keep_zero=True)
    trees = [planting for pair in groups.values() for planting in pair]
    made_from = (Same(*(each.tree for each in trees)), [each.leaf_base for each in trees], max_nodes)
    nodes, roots = cache.get(("nodes",), made_from, partial(node_table, trees, max_nodes))
    return nodes, dict(zip(groups, zip(roots[::2], roots[1::2], strict=True), strict=True))


def _planted(trees: Sequence[Tree], leaf_base: int, *, keep_zero: bool = False) -> tuple[Planting, ...]:
    return tuple(Planting(tree, leaf_base, keep_zero) for tree in trees)


def _observer_name(place: int) -> str:
    """No limit's: those begin with no slash."""
    return f"/observer{place}"


def _named(limit: Limit, name: str) -> Limit:
    return limit.model_copy(update={"name": name})


def _header(
    limits: Sequence[Limit],
    observers: int,
    parts: Parts,
    class_begin: Mapping[Dimension, int],
    roots: Mapping[str, tuple[int, int]],
    settings: RulesetSettings,
    serial: int,
) -> np.void:
    header: NDArray[Any] = np.zeros(1, abi.RULESET)
    header["limits"] = sum(not limit.key_spec.id for limit in limits)
    header["positions"] = len(limits)
    header["observers"] = observers
    header["dimensions"] = sum(1 << dimension for dimension in [*parts.addresses, *parts.small])
    for prefix, name in (("src", "/SRC"), ("dst", "/DST"), ("guard", "/guards")):
        header[f"{prefix}4_root"], header[f"{prefix}6_root"] = roots.get(name, (NO_TREE, NO_TREE))
    for dimension, part in parts.addresses.items():
        classes = [class_begin[dimension] + own for own in part.embedded]
        header[f"{dimension.name.lower()}_embedded_class"] = classes
    header["malformed_drop"] = settings.malformed_drop
    header["table_full_open"] = settings.table_full_open
    header["kernel_bans"] = any(limit.action == "ban" for limit in limits)
    header["event_sample"] = settings.event_sample
    header["event_rate"] = settings.event_rate
    header["serial"] = serial
    return header[0]  # type: ignore[no-any-return]
