# SPDX-License-Identifier: Apache-2.0
"""The documents of this appliance in its store: written when they differ from what is there."""

from __future__ import annotations

import asyncio
import time

from valkyrie.adapters.durable import DurableStore
from valkyrie.control.durable.document import COUNTERS, STATE, pack_counters, pack_state
from valkyrie.control.service.core import Core
from valkyrie.control.telemetry.spans import resumed

COUNTERS_S = 10.0
NEVER = float("-inf")


class Documents:
    """What the store was last told of the control state and the counters."""

    def __init__(self, core: Core, machine: str) -> None:
        self._core = core
        self._machine = machine
        self.forget()

    def forget(self) -> None:
        """The store knows nothing, or what it knows is in doubt."""
        self._serial: int | None = None
        self._counted = NEVER
        self._counters = b""

    async def write(
        self, store: DurableStore, token: str, appliance: str, *, counters_s: float = COUNTERS_S
    ) -> None:
        """The state if it changed, the counters if they did in the last `counters_s`. Raises StoreError."""
        core = self._core
        serial, world = core.serial, core.world  # in this order: a change sets the world first
        if self._serial != serial:
            with resumed(core.changed_by, "store.policy"):
                packed = await asyncio.to_thread(pack_state, world, serial, appliance, self._machine)
                await store.put_document(STATE, packed, token)
            self._serial = serial
        if time.monotonic() - self._counted >= counters_s:
            packed = pack_counters(world, core.engine.figures().limits, appliance)
            if packed != self._counters:
                await store.put_document(COUNTERS, packed, token)
            self._counted, self._counters = time.monotonic(), packed
