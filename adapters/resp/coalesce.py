# SPDX-License-Identifier: Apache-2.0
"""Turns `try_consume` calls that wait at the same time into one call to the server."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from valkyrie.adapters.errors import StoreError, StoreUnavailable
from valkyrie.adapters.resp.consume import MOST_A_CALL, Consumer, Outcome, Taking
from valkyrie.adapters.store import Decision

MAX_WAITING = 16_384  # in one lane: about a second's worth


@dataclass(slots=True)
class _Waiting:
    taking: Taking
    outcome: asyncio.Future[Decision]


@dataclass(slots=True)
class _Lane:
    """Calls of one slot group: one batch under way, the others behind it in order."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    worker: asyncio.Task[None] | None = None

    def ended(self, worker: asyncio.Task[None]) -> None:
        """Clear up after a worker that was cancelled, if need be before it ever ran. Again: nothing."""
        if self.worker is worker:
            self.worker = None
            for left in self.waiting:
                left.outcome.cancel()
            self.waiting.clear()


class Coalescer:
    """One call of each slot group is under way at a time; what comes meanwhile goes with the next. A call on
    its own waits for nobody. There are as many lanes as groups: at most SHARDS.
    """

    def __init__(self, consumer: Consumer, *, max_waiting: int = MAX_WAITING) -> None:
        self._consumer = consumer
        self._max_waiting = max_waiting
        self._lanes: dict[int, _Lane] = {}

    async def take(self, taking: Taking) -> Decision:
        """As Consumer.take of one; raises its StoreError. A caller that is cancelled before its batch was
        sent takes nothing; after that its tokens may be gone, and nobody else's answer is touched.
        """
        group = self._consumer.group_of(taking.bucket)
        lane = self._lanes.get(group)
        if lane is None:
            lane = self._lanes[group] = _Lane()
        if len(lane.waiting) >= self._max_waiting:
            raise StoreUnavailable(
                f"{len(lane.waiting)} calls wait for the store already", "it is slow, or asked for too much"
            )
        waiting = _Waiting(taking, asyncio.get_running_loop().create_future())
        lane.waiting.append(waiting)
        if lane.worker is None:
            lane.worker = asyncio.create_task(self._work(lane), name="coalescer")
            lane.worker.add_done_callback(lane.ended)
        return await waiting.outcome

    async def close(self) -> None:
        """Wait until the calls that were made have their answers."""
        workers = [lane.worker for lane in self._lanes.values() if lane.worker is not None]
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, lane: _Lane) -> None:
        worker = asyncio.current_task()
        try:
            while batch := _next_batch(lane):
                await self._answer(batch)
        finally:  # at once: a call that comes before the task counts as done needs a new worker
            if worker is not None:
                lane.ended(worker)

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            outcomes: list[Outcome] = await self._consumer.take([waiting.taking for waiting in batch])
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.outcome.cancel()
            raise
        except Exception as error:  # noqa: BLE001 a bug: its callers must see it, and not wait for ever
            for waiting in batch:
                _fail(waiting, error)
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                _fail(waiting, outcome)
            elif not waiting.outcome.done():
                waiting.outcome.set_result(outcome)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.outcome.done():
        waiting.outcome.set_exception(error)
        waiting.outcome.exception()  # counts as seen, should the caller be cancelled before it wakes


def _next_batch(lane: _Lane) -> list[_Waiting]:
    """Those who wait still, in order; whoever was cancelled is left out, and its tokens stay."""
    batch: list[_Waiting] = []
    while lane.waiting and len(batch) < MOST_A_CALL:
        waiting = lane.waiting.popleft()
        if not waiting.outcome.done():
            batch.append(waiting)
    return batch
