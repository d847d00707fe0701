# SPDX-License-Identifier: Apache-2.0
"""Comparing two stores key by key, and bringing the secondary to what the primary holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from valkyrie.adapters.migrate.carry import carry_buckets, carry_values
from valkyrie.adapters.migrate.compare import (
    TOLERANCE_S,
    Kind,
    Reading,
    Report,
    bucket_differs,
    full_at,
    value_differs,
)
from valkyrie.adapters.migrate.note import DOCUMENT
from valkyrie.adapters.migrate.side import BEGINNING, VALUES_AT_ONCE, Side, chunks

PAUSE_S = 0.2  # longer than the secondary is told after
LOOKS = 3  # at what differs, while callers go on
CHANGING = ("counters",)  # documents that are written anew all the time


async def _no_progress(done: int) -> None:
    await asyncio.sleep(0)


@dataclass
class Comparison:
    """`progress` is awaited with how many keys were looked at since the last time, and sets the pace."""

    primary: Side
    secondary: Side
    repair: bool = False
    progress: Callable[[int], Awaitable[None]] = _no_progress
    clock: Callable[[], float] = time.monotonic
    pause_s: float = PAUSE_S
    report: Report = field(default_factory=Report)

    async def run(self) -> Report:
        """Everything: first what the primary has, then what only the secondary has. Raises StoreError."""
        await self._buckets_of(self.primary, count=True)
        await self._buckets_of(self.secondary, count=False)
        await self._values_of(self.primary, count=True)
        await self._values_of(self.secondary, count=False)
        await self._documents()
        return self.report

    async def _buckets_of(self, side: Side, *, count: bool) -> None:
        at: str | None = BEGINNING
        while at is not None:
            page, at = await side.bucket_page(at)
            names = [bucket.name for bucket in page]
            if count:
                self.report.buckets += len(names)
            await self._buckets(names)
            await self.progress(len(names))

    async def _buckets(self, names: Sequence[str]) -> None:
        found = await self._suspects(names)
        for kind, name in found:
            self.report.differs(kind, name)
        if self.repair and found:
            await self._repair_buckets(found)

    async def _suspects(self, names: Sequence[str]) -> list[tuple[Kind, str]]:
        """What differs still after looks with a pause between."""
        first = await self._read(names)
        now = self.clock()
        alike = [abs(max(one.primary, now) - max(one.secondary, now)) <= TOLERANCE_S for one in first]
        suspects = {name: one for name, one, same in zip(names, first, alike, strict=True) if not same}
        differing: list[tuple[Kind, str]] = []
        for _ in range(LOOKS):
            if not suspects:
                return []
            await asyncio.sleep(self.pause_s)
            then = dict(zip(suspects, await self._read(list(suspects)), strict=True))
            now = self.clock()
            kinds = {name: bucket_differs(suspects[name], one, now) for name, one in then.items()}
            differing = [(kind, name) for name, kind in kinds.items() if kind is not None]
            suspects = {name: then[name] for _, name in differing}
        return differing

    async def _read(self, names: Sequence[str]) -> list[Reading]:
        primary = [full_at(level, self.clock()) for level in await self.primary.levels(names)]
        secondary = [full_at(level, self.clock()) for level in await self.secondary.levels(names)]
        return [Reading(*both) for both in zip(primary, secondary, strict=True)]

    async def _repair_buckets(self, found: Sequence[tuple[Kind, str]]) -> None:
        """One that is ahead is forgotten first: what callers take after that is told anyway, and what they
        took before is in the primary when it is read.
        """
        ahead = [name for kind, name in found if kind == "bucket-ahead"]
        if ahead:
            await self.secondary.forget_buckets(ahead)
        await carry_buckets(self.primary, self.secondary, [name for _, name in found])
        self.report.repaired += len(found)

    async def _values_of(self, side: Side, *, count: bool) -> None:
        at: str | None = BEGINNING
        while at is not None:
            keys, at = await side.key_page(at)
            if count:
                self.report.values += len(keys)
            for part in chunks(keys, VALUES_AT_ONCE):
                await self._values(part)
                await self.progress(len(part))

    async def _values(self, keys: Sequence[str]) -> None:
        left = list(keys)
        kinds: dict[str, Kind] = {}
        for look in range(LOOKS + 1):
            if look:
                await asyncio.sleep(self.pause_s)
            kinds = await self._differing(left)
            left = list(kinds)
            if not left:
                return
        for key, kind in kinds.items():
            self.report.differs(kind, key)
        readable = [key for key, kind in kinds.items() if kind != "value-unreadable"]
        if self.repair and readable:
            await carry_values(self.primary, self.secondary, readable, self.clock)
            self.report.repaired += len(readable)

    async def _differing(self, keys: Sequence[str]) -> dict[str, Kind]:
        mine, at = await self.primary.values(keys), self.clock()
        theirs, then = await self.secondary.values(keys), self.clock()
        found = {
            key: value_differs(one, at, other, then)
            for key, one, other in zip(keys, mine, theirs, strict=True)
        }
        return {key: kind for key, kind in found.items() if kind is not None}

    async def _documents(self) -> None:
        for name in await self.primary.documents():
            if name == DOCUMENT:
                continue
            self.report.documents += 1
            kind: Kind | None = None
            for look in range(LOOKS):
                if look:
                    await asyncio.sleep(self.pause_s)
                content, other = await self.primary.document(name), await self.secondary.document(name)
                kind = _document_differs(name, content, other)
                if kind is None:
                    break
            if kind is None:
                continue
            self.report.differs(kind, name)
            if self.repair and content is not None:
                await self.secondary.put_document(name, content)
                self.report.repaired += 1


def _document_differs(name: str, content: bytes | None, other: bytes | None) -> Kind | None:
    if content is None:
        return None
    if other is None:
        return "document-missing"
    return "document-differs" if content != other and name not in CHANGING else None
