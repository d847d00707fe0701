# SPDX-License-Identifier: Apache-2.0
"""What this machine lacks and its store may have: the policy of a lost state, the buckets of a new table."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.errors import ConsistencyError
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.durable.document import Kept, LaterVersion
from valkyrie.control.durable.restore import (
    Restored,
    Restorer,
    kept_state,
    restore_buckets,
    restore_counters,
    take_kept,
)
from valkyrie.control.durable.standing import Standing
from valkyrie.control.service.core import Core

log = logging.getLogger(__name__)


class Tables(Restorer, Protocol):
    """What the sync needs of the kernel's data plane, once that was started."""

    @property
    def plane(self) -> Dataplane: ...

    @property
    def unfilled(self) -> bool:
        """Whether the table was made anew, by this daemon or one before, and not filled since."""
        ...

    @property
    def building(self) -> bool:
        """Whether the program that fills the table is being compiled, which no store delays."""
        ...

    def filled(self) -> None:
        """The table holds what the store held."""
        ...


class Lack:
    """`policy` and `buckets` say what is wanted still."""

    def __init__(self, core: Core, tables: Tables, standing: Standing, machine: str) -> None:
        self._core = core
        self._tables = tables
        self._standing = standing
        self._machine = machine
        self.policy = False
        self.buckets = False
        self.restored: Restored | None = None

    def __bool__(self) -> bool:
        return self.policy or self.buckets

    async def supply(self, store: DurableStore, name: str) -> None:
        """Take what is wanted from the store, which people know by `name`. Raises as the store and the table
        do; what was not had is still wanted then.
        """
        if self.policy:
            await self._policy(store, name)
        if self.buckets:
            await self._buckets(store, name)

    async def _policy(self, store: DurableStore, name: str) -> None:
        kept = await self._kept(store)
        if kept is not None and await self._core.in_turn(lambda: take_kept(self._core, kept, self._machine)):
            self._standing.say(
                f"this machine's state knew nothing: {len(kept.desired.limits)} limits, "
                f"{len(kept.desired.exempts)} exempts and {len(kept.desired.bans)} bans are restored as the "
                f"store {name} kept them under {kept.appliance}"
            )
        self.policy = False

    async def _kept(self, store: DurableStore) -> Kept | None:
        try:
            return await kept_state(store)
        except LaterVersion:
            raise
        except ConsistencyError as error:
            log.error("the limits are not restored: %s", error)  # noqa: TRY400 - no bug, so no traceback
            return None

    async def _buckets(self, store: DurableStore, name: str) -> None:
        began = time.monotonic()
        world = self._core.world
        self.restored = await restore_buckets(store, world, self._tables)
        try:
            await restore_counters(store, world, self._tables.plane.limit_stats)
        except LaterVersion:
            raise
        except ConsistencyError as error:
            log.error("the counters are not restored: %s", error)  # noqa: TRY400 - no bug, so no traceback
        self._tables.filled()
        self.buckets = False
        took = time.monotonic() - began
        what = f"{self.restored.placed} of {self.restored.read} buckets restored from {name} in {took:.1f} s"
        self._standing.say(what, logging.INFO)
