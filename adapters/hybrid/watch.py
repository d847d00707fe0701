# SPDX-License-Identifier: Apache-2.0
"""The tasks behind a chain: probes of the stores that are not in use, fail-back, and carrying of buckets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from valkyrie.adapters.errors import AuthenticationFailed, StoreConfigurationError, StoreError
from valkyrie.adapters.hybrid.carry import Carrier
from valkyrie.adapters.hybrid.chain import Chain, Switch
from valkyrie.adapters.hybrid.ledger import Ledger, Snapshot
from valkyrie.adapters.hybrid.member import Member

log = logging.getLogger(__name__)

FIRST_S = 0.1  # between the first probes of a store that went away, doubled each time
USUAL_S = 1.0  # between probes otherwise; less when the hold is shorter
LATER_S = 5.0  # of a store that is only needed when those before it go away
HOPELESS_S = 30.0  # of one that wants a person: each wrong password counts against its account
CARRY_S = 30.0  # the longest that a fail-back waits for its buckets


class Watch:
    """One task a store. `tell` is called for each switch that time brings."""

    def __init__(
        self,
        members: Sequence[Member],
        chain: Chain,
        ledger: Ledger,
        tell: Callable[[Switch], None],
        hold_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._members = members
        self._chain = chain
        self._ledger = ledger
        self._carrier = Carrier(ledger, clock)
        self._tell = tell
        self._clock = clock
        self._usual_s = min(USUAL_S, max(FIRST_S / 2, hold_s / 4))
        self._wake = [asyncio.Event() for _ in members]
        self._pauses = [USUAL_S] * len(members)
        self._returning = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.carried = 0

    def start(self) -> None:
        for index in range(len(self._members)):
            self._spawn(self._probe(index))

    async def close(self) -> None:
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self, index: int) -> None:
        """A call to the store failed: probe it now rather than later."""
        if not self._wake[index].is_set():
            self._pauses[index] = FIRST_S
            self._wake[index].set()

    def switched(self, switch: Switch) -> None:
        """A call switched to another store, which is told behind the callers' backs what they consumed."""
        if switch.target is not None:
            self._spawn(self._behind(switch.target, self._ledger.open()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the chain of stores failed", exc_info=error)

    async def _probe(self, index: int) -> None:
        member, chain, wake = self._members[index], self._chain, self._wake[index]
        while True:
            # Not wait_for: Python 3.11's loses a cancellation that comes as the event is set.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pauses[index]):
                    await wake.wait()
            wake.clear()
            if index == chain.in_use:
                self._pauses[index] = USUAL_S
                continue
            health = await member.probe()
            if index != chain.in_use:
                chain.probed(index, self._clock(), ok=health.ok, why=health.detail)
            self._pauses[index] = self._pause(index, ok=health.ok)
            await self._settle()

    def _pause(self, index: int, *, ok: bool) -> float:
        if not ok and isinstance(self._members[index].error, AuthenticationFailed | StoreConfigurationError):
            return HOPELESS_S
        if not ok:
            return min(self._pauses[index] * 2, USUAL_S)
        in_use = self._chain.in_use
        return self._usual_s if in_use is None or index < in_use else LATER_S

    async def _settle(self) -> None:
        """Back to an earlier store if it is time; its buckets are told what the others took first."""
        async with self._returning:
            switch = self._chain.due(self._clock())
            if switch is None or switch.target is None:
                return
            if switch.source is not None and not await self._carry(switch.target, self._ledger.open()):
                return
            if self._chain.back(switch, self._clock()):
                # What was consumed at the former store while its buckets were being carried; from here on
                # the ledger hears of the store that is used again.
                snapshot = self._ledger.open()
                self._tell(switch)
                await self._carry(switch.target, snapshot)

    async def _behind(self, index: int, snapshot: Snapshot) -> None:
        await self._carry(index, snapshot)

    async def _carry(self, index: int, snapshot: Snapshot) -> bool:
        """Whether the store took it; one that did not is not well."""
        member = self._members[index]
        try:
            async with asyncio.timeout(CARRY_S):
                self.carried += await self._carrier.carry(snapshot, member.adapter)
        except (StoreError, TimeoutError) as error:
            log.warning("what was consumed elsewhere is not carried to %s: %s", member.name, error)
            self._chain.probed(index, self._clock(), ok=False, why=str(error) or "too slow")
            return False
        finally:
            self._ledger.close(snapshot)
        return True
