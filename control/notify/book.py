# SPDX-License-Identifier: Apache-2.0
"""All queues in memory, and each change of them on the disk a moment later.

Memory is what counts while the process lives: with a full disk people are still told, and `problem` says
that a restart would lose what waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from valkyrie.adapters.notify.message import Message
from valkyrie.control.errors import StateError
from valkyrie.control.notify import journal as on_disk
from valkyrie.control.notify.backlog import Backlog, Entry
from valkyrie.control.notify.journal import Change, Counts, Dead, Journal, Kept

log = logging.getLogger(__name__)

MOST_DEAD = 100
RETRY_S = 5.0
CLOSE_S = 1.0


class Book:
    """Use from the event loop alone."""

    def __init__(self, journal: Journal, most: int, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.problem = ""
        self.most = most
        self.backlogs: dict[str, Backlog] = {}
        self.dead: dict[str, list[Dead]] = {}
        self.counts: dict[str, Counts] = {}
        self._journal = journal
        self._next = 1
        self._changes: list[Change] = []
        self._waiting: list[asyncio.Future[bool]] = []
        self._changed = asyncio.Event()
        self.durable = True
        self._whole = False  # the file lacks something: write all of it
        self._read = False  # what the file held at the start is taken up
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="notify")
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take up what waits. A file that cannot be opened is a `problem`, not an error."""
        loop = asyncio.get_running_loop()
        try:
            kept, self.problem = await loop.run_in_executor(self._thread, self._journal.open)
        except StateError as error:
            self.problem, self.durable, self._whole = str(error), False, True
            self._changed.set()
        else:
            self._take_up(kept)
        if self.problem:
            log.error("%s", self.problem)
        self._writer = loop.create_task(self._write())

    def _take_up(self, kept: Kept) -> None:
        """What the file held when it was first read."""
        self._read = True
        if self._next > 1:  # it could not be read at the start: what came since has these numbers
            self._whole = True
            kept = renumbered(kept, self._next)
        for adapter, counts in kept.counts.items():
            mine = self.counts_of(adapter)
            mine.dropped += counts.dropped
            mine.forgotten += counts.forgotten
        for one in kept.dead:
            self.dead.setdefault(one.entry.adapter, []).append(one)
        ids = [entry.id for entry in kept.queue] + [one.entry.id for one in kept.dead]
        self._next = max([self._next, *(number + 1 for number in ids)])
        for entry in kept.queue:
            self._put(replace(entry, age=max(0.0, self._wall() - entry.queued)))

    def backlog(self, adapter: str) -> Backlog:
        return self.backlogs.setdefault(adapter, Backlog(self.most))

    def resize(self, most: int) -> None:
        self.most = most
        for backlog in self.backlogs.values():
            backlog.most = most

    def counts_of(self, adapter: str) -> Counts:
        return self.counts.setdefault(adapter, Counts())

    def add(self, adapter: str, message: Message, now: float) -> None:
        entry = Entry(self._next, adapter, message, now)
        self._next += 1
        self._change(on_disk.queued(entry))
        self._put(entry)

    def _put(self, entry: Entry) -> None:
        gone = self.backlog(entry.adapter).add(entry)
        if gone:
            counts = self.counts_of(entry.adapter)
            if not counts.dropped:
                log.warning(
                    "notifications for %s: the queue is full, the least urgent are dropped", entry.adapter
                )
            counts.dropped += len(gone)
            self._change(*map(on_disk.unqueued, gone), on_disk.counted(entry.adapter, counts))

    def done(self, entry: Entry) -> None:
        self.backlog(entry.adapter).remove(entry)
        self._change(on_disk.unqueued(entry))

    def bury(self, entry: Entry, why: str, now: float) -> None:
        """Not to be delivered any more; the newest MOST_DEAD of an adapter are kept to be looked at."""
        self.done(entry)
        made = Dead(entry, now, why)
        graves = self.dead.setdefault(entry.adapter, [])
        graves.append(made)
        self._change(on_disk.buried(made))
        counts = self.counts_of(entry.adapter)
        while len(graves) > MOST_DEAD:
            self._change(on_disk.unburied(graves.pop(0)))
            counts.forgotten += 1
            self._change(on_disk.counted(entry.adapter, counts))

    def revive(self, adapter: str, now: float) -> int:
        """Queue the adapter's dead messages again; how many."""
        graves = self.dead.pop(adapter, [])
        for one in graves:
            self._change(on_disk.unburied(one))
            self.add(adapter, one.entry.message, now)
        return len(graves)

    def forget(self, adapter: str) -> None:
        """All that is known of an adapter that is no more."""
        graves = self.dead.pop(adapter, [])
        waiting = self.backlogs.pop(adapter, Backlog(1)).entries
        self.counts.pop(adapter, None)
        gone = [*map(on_disk.unburied, graves), *map(on_disk.unqueued, waiting)]
        self._change(*gone, on_disk.uncounted(adapter))

    def kept(self) -> Kept:
        queue = [entry for backlog in self.backlogs.values() for entry in backlog.entries]
        dead = [one for graves in self.dead.values() for one in graves]
        return Kept(queue, dead, dict(self.counts))

    def saved(self) -> asyncio.Future[bool]:
        """Done when all changes so far are on the disk; False: they are not, see `problem`."""
        made: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(made)
        self._changed.set()
        return made

    def _change(self, *changes: Change) -> None:
        if not self._whole:
            self._changes.extend(changes)
        self._changed.set()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            if not await self._write_once():
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    async def _write_once(self) -> bool:
        self._changed.clear()
        waiting, self._waiting = self._waiting, []
        whole = self._whole
        changes, self._changes, self._whole = self._changes, [], False
        snapshot = self.kept() if whole else None
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._apply, changes, snapshot, self._read
            )
        except StateError as error:
            if str(error) != self.problem:
                log.error("%s", error)  # noqa: TRY400 - no bug, so no traceback
            self.problem, self.durable, self._whole, self._changes = str(error), False, True, []
            _resolve(waiting, saved=False)
            return False
        except BaseException:
            self._whole = True
            _resolve(waiting, saved=False)
            raise
        if found is not None:
            self._take_up(found)
            self._waiting += waiting
            self._changed.set()
            return True
        if not self.durable:
            log.info("the queue of notifications is on the disk again")
            self.problem, self.durable = "", True
        _resolve(waiting, saved=True)
        return True

    def _apply(self, changes: list[Change], snapshot: Kept | None, read: bool) -> Kept | None:
        """In the thread. What the file holds, if that is not known yet."""
        if snapshot is None:
            if changes:
                self._journal.apply(changes)
            return None
        self._journal.close()
        found, _ = self._journal.open()
        if not read:
            return found
        self._journal.apply(on_disk.everything(snapshot))
        return None

    async def close(self) -> None:
        """The last changes, within a second. Again: nothing."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                if self.durable:  # also when nothing is new: a write may be under way
                    await self.saved()
        except TimeoutError:
            log.warning("the queue of notifications was not written in time")
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        _resolve(self._waiting, saved=False)
        self._thread.submit(self._journal.close)
        self._thread.shutdown(wait=False)

    def status(self) -> dict[str, Any]:
        return {"problem": self.problem, "durable": self.durable}


def renumbered(kept: Kept, first: int) -> Kept:
    """The same with ids from `first` on."""
    queue = [replace(entry, id=first + at) for at, entry in enumerate(kept.queue)]
    first += len(queue)
    dead = [replace(one, entry=replace(one.entry, id=first + at)) for at, one in enumerate(kept.dead)]
    return Kept(queue, dead, kept.counts)


def _resolve(waiting: list[asyncio.Future[bool]], *, saved: bool) -> None:
    for one in waiting:
        if not one.done():
            one.set_result(saved)
