# SPDX-License-Identifier: Apache-2.0
"""Operations on exempts and bans: prefixes that always pass, prefixes that never do."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from valkyrie.control.audit import DAEMON, Actor
from valkyrie.control.errors import NotFound
from valkyrie.control.limits import Ban, Exempt
from valkyrie.control.prefix import canonical_prefix
from valkyrie.control.service.core import Core
from valkyrie.control.service.world import World, with_desired
from valkyrie.control.units import parse_duration

Kind = Literal["exempt", "ban"]
MOST_MADE = 1000  # bans made by limits that are listed


class Guards:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._looking = asyncio.Lock()  # a look at the whole table, one at a time

    async def list(self, kind: Kind) -> dict[str, Any]:
        """Entries in force; one that has expired is not shown though the sweep may not have been there.

        Bans made by limits come after those made by people, at most MOST_MADE, the longest first.
        """
        now = self._core.clock.wall()
        rows = [
            {"prefix": entry.prefix, "until": entry.until, "note": entry.note}
            for entry in _entries(self._core.world, kind)
            if entry.until is None or entry.until > now
        ]
        if kind == "ban":
            rows = [{**row, "by": "person"} for row in rows]
            async with self._looking:
                made = await asyncio.to_thread(self._core.engine.bans, MOST_MADE)
            rows += [
                {"prefix": one.prefix, "until": now + one.left_ns / 1e9, "note": "", "by": "limit"}
                for one in made
            ]
        return {kind: rows}

    async def put(
        self, actor: Actor, kind: Kind, prefix: str, lasting: str | None, note: str
    ) -> dict[str, Any]:
        """Add, or replace that of the same prefix. `lasting` as 10m; None: for ever. Raises InvalidInput."""
        until = self._core.clock.wall() + parse_duration(lasting) / 1e9 if lasting else None
        made = (Exempt if kind == "exempt" else Ban)(prefix=prefix, until=until, note=note)

        def update(world: World) -> World:
            rest = (entry for entry in _entries(world, kind) if entry.prefix != made.prefix)
            return _with(world, kind, tuple(sorted((*rest, made), key=lambda entry: entry.prefix)))

        await self._core.change(actor, f"{kind}.set", made.prefix, {"for": lasting, "note": note}, update)
        return {"prefix": made.prefix, "until": until, "note": note}

    async def delete(self, actor: Actor, kind: Kind, prefix: str) -> dict[str, Any]:
        """Raises NotFound. A ban goes whoever made it: a person, a limit, or both."""
        wanted = canonical_prefix(prefix)
        lifted = kind == "ban" and await self._core.in_turn(lambda: self._lift(actor, wanted))
        if lifted and all(entry.prefix != wanted for entry in self._core.world.desired.bans):
            return {"deleted": wanted}

        def update(world: World) -> World:
            left = tuple(entry for entry in _entries(world, kind) if entry.prefix != wanted)
            if len(left) == len(_entries(world, kind)):
                raise NotFound(f"there is no {kind} of {wanted}", f"valkyrie-ctl {kind} list shows them")
            return _with(world, kind, left)

        await self._core.change(actor, f"{kind}.delete", wanted, {}, update)
        return {"deleted": wanted}

    def _lift(self, actor: Actor, prefix: str) -> bool:
        if not self._core.engine.lift(prefix):
            return False
        self._core.note(actor, "ban.lift", prefix, {})
        return True

    async def sweep(self) -> int:
        """Remove what has expired; how many that were. The kernel heeds expiry by itself."""
        now = self._core.clock.wall()
        gone = _expired(self._core.world, now)
        if not gone:
            return 0

        def update(world: World) -> World:
            return with_desired(
                world,
                exempts=tuple(entry for entry in world.desired.exempts if not _over(entry, now)),
                bans=tuple(entry for entry in world.desired.bans if not _over(entry, now)),
            )

        await self._core.change(DAEMON, "expired", "", {"prefixes": gone[:64], "count": len(gone)}, update)
        return len(gone)


def _expired(world: World, now: float) -> list[str]:
    entries: tuple[Exempt | Ban, ...] = (*world.desired.exempts, *world.desired.bans)
    return [entry.prefix for entry in entries if _over(entry, now)]


def _over(entry: Exempt | Ban, now: float) -> bool:
    return entry.until is not None and entry.until <= now


def _entries(world: World, kind: Kind) -> tuple[Exempt, ...] | tuple[Ban, ...]:
    return world.desired.exempts if kind == "exempt" else world.desired.bans


def _with(world: World, kind: Kind, entries: tuple[Exempt | Ban, ...]) -> World:
    return with_desired(world, **({"exempts": entries} if kind == "exempt" else {"bans": entries}))
