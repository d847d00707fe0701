# SPDX-License-Identifier: Apache-2.0
"""Which maps there are, what their values look like, and whether pinned ones fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, pins
from valkyrie.control.dataplane.source import Sizes
from valkyrie.control.errors import Conflict

EVENTS = "events"
NICS = "nics"
CAPTURED = "captured"
OBSERVED = "observed"
# Pinned, but not seen as arrays.
UNMAPPED = frozenset({EVENTS, NICS, CAPTURED, OBSERVED, "continuation", "watchers"})


@dataclass(frozen=True)
class Table:
    """An array map seen as a numpy array: the dtype of one value and how many there are.

    The first `generations` parts are equal in size: 2 for what is published, else 1.
    """

    name: str
    dtype: np.dtype[Any]
    entries: int
    generations: int = 1


def tables(sizes: Sizes) -> tuple[Table, ...]:
    """Every array map of a build of these sizes."""
    return (
        Table("control", abi.CONTROL, 1),
        Table("rulesets", abi.RULESET, 2, 2),
        Table("limits", abi.LIMIT, 2 * abi.MAX_LIMITS, 2),
        Table("plans", abi.PLAN, 2 * abi.MAX_PLANS, 2),
        Table("nodes", abi.NODE, 2 * sizes.nodes, 2),
        Table("classes", abi.BITMAP, 2 * abi.MAX_CLASSES, 2),
        Table("fields", abi.FIELD_BLOCK, 2 * abi.FIELD_BLOCKS, 2),
        Table("guards", abi.GUARD, 2 * abi.MAX_GUARDS, 2),
        Table("buckets", abi.BUCKET_SET, sizes.sets),
        Table("bucket_keys", abi.BUCKET_KEY_SET, sizes.sets),
        Table("set_locks", np.dtype(np.uint64), abi.SET_LOCKS),
        Table("leases", abi.LEASE, sizes.cpus * abi.LEASES),
        Table("limit_stats", abi.LIMIT_STATS, sizes.cpus * abi.MAX_LIMITS),
        Table("reason_stats", abi.REASON_STATS, sizes.cpus * abi.REASONS),
        Table("table_stats", abi.TABLE_STATS, sizes.cpus),
        Table("watch", abi.WATCH, 1),
        Table("watch_stats", abi.WATCH_STATS, sizes.cpus * abi.WATCHES),
        Table("explanations", abi.EXPLANATION, abi.MAX_LIMITS),
    )


def abi_version() -> int:
    """The ABI that this control plane speaks."""
    return int(abi.ABI_VERSION)


def misfits(pin_dir: Path, sizes: Sizes) -> list[str]:
    """What pinned maps have another shape than a build of these sizes needs; empty: all fit."""
    found: list[str] = []
    there = pins.pinned(pin_dir)
    for table in tables(sizes):
        if table.name not in there:
            continue
        with bpf.opened(pin_dir / table.name) as fd:
            info = bpf.map_info(fd)
        if info.type != bpf.MAP_TYPE_ARRAY or info.value_size != table.dtype.itemsize:
            found.append(f"{table.name}: values of {info.value_size} bytes, {table.dtype.itemsize} needed")
        elif info.max_entries != table.entries:
            found.append(f"{table.name}: {info.max_entries} entries, {table.entries} needed")
    return found


def check(pin_dir: Path, sizes: Sizes) -> None:
    """Raise Conflict unless every pinned map fits a build of these sizes."""
    found = misfits(pin_dir, sizes)
    if found:
        raise Conflict(
            f"pinned maps in {pin_dir} have another layout: {'; '.join(found)}",
            "a migration carries the buckets over: valkyried does it when it starts",
        )
