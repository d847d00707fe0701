# SPDX-License-Identifier: Apache-2.0
"""What is done in each phase of a migration. Each step may be done twice; the record is kept after each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.migrate.carry import carry_values, copy_documents
from valkyrie.adapters.migrate.compare import full_at, level_at
from valkyrie.adapters.migrate.migratable import whole
from valkyrie.adapters.migrate.note import DOCUMENT, SEEN_S
from valkyrie.adapters.migrate.passes import Comparison
from valkyrie.adapters.migrate.plan import BACK, Record, told
from valkyrie.adapters.migrate.side import BUCKETS_AT_ONCE, VALUES_AT_ONCE, Side, chunks
from valkyrie.adapters.store import StoreAdapter
from valkyrie.control.durable.rounds import Pace

KEPT_S = 0.5  # between two times that the place of the copy is kept
SETTLE_S = 0.5  # until what was under way to a store that was wiped is there too

Doing = Literal["", "emptying", "telling", "copying", "comparing"]


class Steps:
    """From the record that `read` gives to where a person decides, or to the end: `over` then says how it
    ended. A person may change the record meanwhile.
    """

    def __init__(
        self,
        read: Callable[[], Record | None],
        keep: Callable[[Record | None], None],
        make: Callable[[str], StoreAdapter],
        per_second: int,
    ) -> None:
        self._read = read
        self._keep_record = keep
        self._make = make
        self._per_second = per_second
        self._adapters: dict[str, StoreAdapter] = {}
        self._kept = time.monotonic()
        self._began = time.monotonic()
        self._work = 0  # keys since then
        self._done, self._total = self._record.done, self._record.total
        self.doing: Doing = ""
        self.over = ""

    @property
    def _record(self) -> Record:
        record = self._read()
        assert record is not None, "only what runs here forgets it"
        return record

    async def run(self) -> None:
        """Raises StoreError, StateError; then a new one may go on."""
        while not self.over and not self.idle:
            await self._step()
            self.doing = ""

    async def close(self) -> None:
        for adapter in self._adapters.values():
            with contextlib.suppress(StoreError):
                await adapter.close()
        self._adapters.clear()

    def figures(self) -> dict[str, Any]:
        seconds = max(time.monotonic() - self._began, 1e-3)
        record = self._read()
        copied = record is not None and record.copied and not self.doing
        percent = 100.0 if copied else 100.0 * self._done / self._total if self._total else 0.0
        return {
            "doing": self.doing,
            "done": self._done,
            "total": self._total,
            "percent": min(100.0, percent),
            "keys_a_second": self._work / seconds if self.doing else 0.0,
        }

    @property
    def idle(self) -> bool:
        """Whether a person decides what comes next."""
        record = self._record
        ready = record.emptied and record.seen and not record.asked
        return ready and record.copied and record.note.phase in ("copying", "cutover")

    async def _step(self) -> None:
        record = self._record
        phase = record.note.phase
        if record.asked == "abort" and phase in BACK and phase != "returning":
            await self._back()
        elif not record.emptied:
            await self._wipe(await self._side(record.note.target))
            self._keep(replace(record, emptied=True))
        elif not record.seen:
            await self._announce()
        elif phase == "copying" and not record.copied:
            await self._copy()
        elif record.asked in ("validate", "repair"):
            await self._compare(repair=record.asked == "repair")
            self._keep(replace(self._record, asked=""))
        elif phase in ("copying", "switching", "returning"):
            # For `switching` and `returning` once more: what somebody could not tell the other store before
            # tokens were taken from both.
            await self._compare(repair=True)
            self._onward()
        elif phase == "cutover":
            self._keep(record.enter("cleaning"))
        else:
            await self._finish()

    def _onward(self) -> None:
        record = self._record
        if record.note.phase == "returning":
            self._keep(record.enter("aborting"))
        elif record.asked != "abort" and record.note.phase == "copying":
            self._keep(record.enter("switching"))
        elif record.asked != "abort":
            self._keep(replace(record.enter("cutover"), asked=""))

    async def _back(self) -> None:
        """One phase back. From `cutover` the source must first have all that the target has."""
        record = self._record
        phase = BACK[record.note.phase]
        if phase == "returning":
            if record.force:
                phase = "aborting"
            else:
                await self._compare(repair=True)
        self._keep(self._record.enter(phase))

    async def _announce(self) -> None:
        """Write the note to both stores and wait until everybody has seen it. A store that is left need not
        be there.
        """
        self._start("telling")
        note = self._record.note
        left = note.secondary if note.phase in ("cleaning", "aborting") else ""
        for name in (note.primary, note.secondary):
            try:
                await (await self._side(name)).put_document(DOCUMENT, note.packed())
            except StoreError:
                if name != left:
                    raise
        await asyncio.sleep(SEEN_S)
        self._keep(replace(self._record, seen=True))

    async def _copy(self) -> None:
        """From where the record says; buckets, then values, then documents."""
        note = self._record.note
        source, target = await self._side(note.source), await self._side(note.target)
        if not self._total:
            total = await source.count()
            self._total = total
            self._keep(replace(self._record, total=total))
        self._start("copying")
        pace = Pace(self._per_second)
        if self._record.kind == "buckets":
            await self._copy_buckets(source, target, pace)
            self._keep(replace(self._record, kind="values", at="", done=self._done))
        await self._copy_values(source, target, pace)
        await copy_documents(source, target, DOCUMENT)
        self._keep(replace(self._record, copied=True, at="", done=self._done))

    async def _copy_buckets(self, source: Side, target: Side, pace: Pace) -> None:
        at: str | None = self._record.at
        while at is not None:
            page, at = await source.bucket_page(at)
            now = time.monotonic()
            full = [(bucket.name, full_at(bucket.level, now)) for bucket in page]
            for part in chunks(full, BUCKETS_AT_ONCE):
                now = time.monotonic()
                await target.raise_buckets([BucketLevel(name, level_at(when, now)) for name, when in part])
                await self._progress(len(part), pace)
            self._keep_place(at)

    async def _copy_values(self, source: Side, target: Side, pace: Pace) -> None:
        at: str | None = self._record.at
        while at is not None:
            keys, at = await source.key_page(at)
            for part in chunks(keys, VALUES_AT_ONCE):
                await carry_values(source, target, part, time.monotonic)
                await self._progress(len(part), pace)
            self._keep_place(at)

    def _keep_place(self, at: str | None) -> None:
        if at is not None and time.monotonic() - self._kept > KEPT_S:
            self._keep(replace(self._record, at=at, done=self._done))

    async def _progress(self, keys: int, pace: Pace) -> None:
        self._done += keys
        self._work += keys
        await pace.after(keys)

    async def _compare(self, *, repair: bool) -> None:
        note = self._record.note
        primary, secondary = await self._side(note.primary), await self._side(note.secondary)
        self._total = await primary.count() + await secondary.count()
        self._done = 0
        self._start("comparing")
        pace = Pace(self._per_second)

        async def progress(keys: int) -> None:
            await self._progress(keys, pace)

        report = await Comparison(primary, secondary, repair=repair, progress=progress).run()
        self._keep(replace(self._record, report=told(report), compared=time.time()))

    async def _finish(self) -> None:
        """Empty the store that is left, and forget the migration."""
        record, note = self._record, self._record.note
        left = ""
        try:
            side = await self._side(note.secondary)
            await self._wipe(side)
            await asyncio.sleep(SETTLE_S)
            await self._wipe(side)
        except StoreError as error:
            if not record.force:
                raise
            left = f"; it was not emptied: {error}"
        await (await self._side(note.primary)).drop_document(DOCUMENT)
        done = "migrated to" if note.phase == "cleaning" else "the migration was aborted, back at"
        self.over = f"{done} {note.primary}; {note.secondary} is left{left}"
        self._keep_record(None)

    async def _wipe(self, side: Side) -> None:
        self._done = self._total = 0
        self._start("emptying")
        while gone := await side.wipe():
            self._done += gone
            self._work += gone

    def _start(self, doing: Doing) -> None:
        self.doing = doing
        self._began, self._work = time.monotonic(), 0

    def _keep(self, record: Record) -> None:
        if record.note != self._record.note:
            self._done = self._total = 0
        self._keep_record(record)
        self._kept = time.monotonic()

    async def _side(self, name: str) -> Side:
        adapter = self._adapters.get(name)
        if adapter is None:
            adapter = self._make(name)
            await adapter.start()
            self._adapters[name] = adapter
        return whole(adapter).side()
