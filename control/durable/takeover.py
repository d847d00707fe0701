# SPDX-License-Identifier: Apache-2.0
"""What a standby takes from the store of the appliance whose place it takes, and what it leaves there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping

from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.errors import (
    ConsistencyError,
    OwnedByAnother,
    StoreConnectionError,
    StoreTimeout,
    StoreUnavailable,
)
from valkyrie.control.dataplane.maps import Array
from valkyrie.control.durable.document import (
    COUNTERS,
    STATE,
    Kept,
    LaterVersion,
    check_version,
    read_counters,
    read_state,
)
from valkyrie.control.durable.lack import Tables
from valkyrie.control.durable.publish import Documents
from valkyrie.control.durable.restore import Restored, apply_kept, restore_buckets
from valkyrie.control.limits import Ban, Desired, Exempt
from valkyrie.control.service.core import Core
from valkyrie.control.service.world import World

log = logging.getLogger(__name__)

BEAT_S = 1.0


@contextlib.asynccontextmanager
async def heard_of(store: DurableStore, token: str) -> AsyncIterator[None]:
    """Say that the owner is alive, until the block ends. Who has lost the name is told at the next write."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with contextlib.suppress(StoreConnectionError, StoreTimeout, StoreUnavailable):
                await store.renew(token)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def take_what_is_kept(
    store: DurableStore, core: Core, tables: Tables, *, token: str, name: str, machine: str
) -> Restored:
    """Policy, buckets and counters of the appliance `name`, whose owner we are, into this one; then its
    documents are written anew. Doing it again is harmless. Raises as the store, a change and the table do.
    """
    async with heard_of(store, token):
        content = await store.get_document(STATE)
        check_version(content)
        if content is not None:
            # A damaged one is written anew, from what was last had of it.
            with contextlib.suppress(ConsistencyError):
                await take_policy(core, await asyncio.to_thread(read_state, content))
        restored = await restore_buckets(store, core.world, tables)
        await raise_counters(store, core.world, tables.plane.limit_stats)
        tables.filled()
        await Documents(core, machine).write(store, token, name, counters_s=0)
        return restored


async def take_policy(core: Core, kept: Kept) -> bool:
    """Make the document's policy ours; whether it was another."""

    def work() -> bool:
        if core.world.desired == kept.desired:
            return False
        apply_kept(core, kept)
        return True

    changed = await core.in_turn(work)
    if changed:
        await core.after_change()
    return changed


async def raise_counters(store: DurableStore, world: World, limit_stats: Array) -> None:
    """Bring the counters to at least the totals in the store; again: nothing. What this appliance counted
    while it followed is part of that. Damaged ones keep nobody from taking over.
    """
    content = await store.get_document(COUNTERS)
    if content is None:
        return
    try:
        totals = read_counters(content, world)
    except LaterVersion:
        raise
    except ConsistencyError as error:
        log.error("the counters are not restored: %s", error)  # noqa: TRY400 - no bug, so no traceback
        return
    for field in totals.dtype.names or ():
        here = limit_stats[field].sum(axis=0)
        behind = totals[field] > here
        limit_stats[field][0][behind] += (totals[field] - here)[behind]


async def refuse_rival(content: bytes | None, world: World, machine: str, name: str) -> None:
    """Raises OwnedByAnother if `content` is what another machine decided under this name, and is not what
    is in force here: a newer policy is not written over by one that was away meanwhile.
    """
    if content is None:
        return
    try:
        kept = await asyncio.to_thread(read_state, content)
    except LaterVersion:
        raise
    except ConsistencyError:
        return  # damaged: it may be written over
    now = time.time()
    if kept.machine in {machine, ""} or _lasting(kept.desired, now) == _lasting(world.desired, now):
        return
    raise OwnedByAnother(
        f"another machine has written a policy under the name {name}, which is not the one in force here",
        "it is not written over",
    )


def _lasting(desired: Desired, now: float) -> Mapping[str, object]:
    """What is decided, without what has expired: one machine may have swept that already."""

    def live(entries: tuple[Exempt, ...] | tuple[Ban, ...]) -> list[Exempt | Ban]:
        return [one for one in entries if one.until is None or one.until > now]

    return {
        "limits": desired.limits,
        "overrides": desired.overrides,
        "exempts": live(desired.exempts),
        "bans": live(desired.bans),
    }
