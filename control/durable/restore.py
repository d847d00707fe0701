# SPDX-License-Identifier: Apache-2.0
"""From a store into this machine: buckets into the kernel's table, counters, and the policy.

Also what a standby does when it takes over. Buckets can be restored into a table that packets use: a TAT
is raised to what the store holds and never lowered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from valkyrie.adapters.durable import DurableStore
from valkyrie.control.audit import DAEMON
from valkyrie.control.dataplane.maps import Array
from valkyrie.control.durable.document import COUNTERS, STATE, Kept, read_counters, read_state
from valkyrie.control.durable.names import Entries, entries_of, targets_of
from valkyrie.control.key import KeySpec
from valkyrie.control.limits import Desired
from valkyrie.control.service.core import Core
from valkyrie.control.service.world import World

AT_ONCE = 8192  # entries that are handed to the kernel's program together


class Restorer(Protocol):
    """What puts entries (names.ENTRY) into the table, by the kernel's own program."""

    def restore(self, entries: Entries, specs: Mapping[int, KeySpec]) -> int:
        """Raise each bucket's TAT to its level from now, making it if need be; how many belong to limits
        that are in force. `specs` tells each uid's key.
        """


@dataclass(frozen=True)
class Restored:
    """`read` buckets were in the store; `placed` belong to limits that there are."""

    read: int
    placed: int


async def restore_buckets(store: DurableStore, world: World, restorer: Restorer) -> Restored:
    """All buckets of the store into the table. Raises StoreError or DataplaneError; what was restored until
    then stays, and doing it again is harmless.
    """
    targets = targets_of(world)
    specs = {target.uid: target.spec for target in targets.values()}
    read = placed = 0
    waiting: list[Entries] = []
    under_way: asyncio.Task[int] | None = None
    try:
        async for piece in store.buckets():
            read += len(piece)
            waiting.append(entries_of(piece, targets))
            if sum(map(len, waiting)) >= AT_ONCE:
                placed += await under_way if under_way is not None else 0
                # The kernel takes these while the store is asked for more.
                entries, waiting = np.concatenate(waiting), []
                under_way = asyncio.create_task(asyncio.to_thread(restorer.restore, entries, specs))
        placed += await under_way if under_way is not None else 0
    finally:
        if under_way is not None:
            await asyncio.wait([under_way])
    if waiting:
        placed += await asyncio.to_thread(restorer.restore, np.concatenate(waiting), specs)
    return Restored(read, placed)


async def restore_counters(store: DurableStore, world: World, limit_stats: Array) -> None:
    """Add the store's totals to the counters of the first CPU. `limit_stats` is (cpus, MAX_LIMITS).

    Once, into counters that began at zero.
    """
    content = await store.get_document(COUNTERS)
    if content is None:
        return
    totals = read_counters(content, world)
    for field in totals.dtype.names or ():
        limit_stats[field][0] += totals[field]


async def kept_state(store: DurableStore) -> Kept | None:
    """What the store's `state` document says. Raises ConsistencyError for one that cannot be used."""
    content = await store.get_document(STATE)
    return None if content is None else await asyncio.to_thread(read_state, content)


def take_kept(core: Core, kept: Kept, machine: str) -> bool:
    """Make what the store kept the policy of an appliance that knows nothing: False if it knows something.
    In the thread of changes. Raises what a change raises.

    Before the first ruleset is in force, the limits come with the numbers that they had, so that a kernel
    that still polices by them loses no bucket; and with the NICs, if it was this machine that had them.
    """
    if core.serial or core.world.desired != Desired() or core.world.nics:
        return False
    detail = {"limits": len(kept.desired.limits), "serial": kept.serial, "machine": kept.machine}
    if core.compiled is None:
        nics = kept.nics if kept.machine == machine else {}
        core.recover(World(kept.desired, nics, kept.allotment), kept.serial, DAEMON, kept.appliance, detail)
    else:
        apply_kept(core, kept)
    return True


def apply_kept(core: Core, kept: Kept) -> None:
    """Make the document's policy that of a running appliance; in the thread of changes. NICs stay as they
    are. Raises what a change raises.
    """
    detail = {"limits": len(kept.desired.limits), "serial": kept.serial, "machine": kept.machine}
    core.make(DAEMON, "restore", kept.appliance, detail, lambda world: replace(world, desired=kept.desired))
