# SPDX-License-Identifier: Apache-2.0
"""Operations on limits and their overrides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from valkyrie.control.audit import Actor
from valkyrie.control.counted import COUNTERS, counter
from valkyrie.control.document import checked
from valkyrie.control.errors import NotFound
from valkyrie.control.limits import Limit, Override
from valkyrie.control.prefix import canonical_prefix
from valkyrie.control.service.core import Core
from valkyrie.control.service.engine import Figures
from valkyrie.control.service.world import World, with_desired


class Limits:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def put(self, actor: Actor, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Create the limit or replace it as a whole; its overrides stay. Raises InvalidInput, Conflict."""
        given = {**{k: v for k, v in fields.items() if v is not None}, "name": name}
        limit = await asyncio.to_thread(checked, Limit, given)  # 100,000 prefixes take a while

        def update(world: World) -> World:
            if world.limits.get(name) == limit:
                return world
            rest = (other for other in world.desired.limits if other.name != name)
            return with_desired(world, limits=tuple(sorted((*rest, limit), key=lambda one: one.name)))

        world = await self._core.change(actor, "limit.set", name, fields, update)
        return _shown(world, limit, self._core.engine.figures())

    async def delete(self, actor: Actor, name: str) -> dict[str, Any]:
        """Delete the limit with its overrides. Raises NotFound."""

        def update(world: World) -> World:
            known(world, name)
            return with_desired(
                world,
                limits=tuple(limit for limit in world.desired.limits if limit.name != name),
                overrides=(
                    tuple(entry for entry in world.desired.overrides if entry.limit != name)
                    if world.overrides_of[name]
                    else world.desired.overrides
                ),
            )

        await self._core.change(actor, "limit.delete", name, {}, update)
        return {"deleted": name}

    def list(self) -> dict[str, Any]:
        world, figures = self._core.world, self._core.engine.figures()
        return {"limits": [_shown(world, limit, figures) for limit in world.desired.limits]}

    def show(self, name: str) -> dict[str, Any]:
        return _shown(self._core.world, known(self._core.world, name), self._core.engine.figures())

    def overrides(self, name: str) -> dict[str, Any]:
        world = self._core.world
        known(world, name)
        return {"overrides": [_override(entry) for entry in world.desired.overrides if entry.limit == name]}

    async def put_overrides(
        self, actor: Actor, name: str, entries: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """Add overrides or replace those of the same prefixes: all or none. Raises NotFound, InvalidInput."""
        limit = known(self._core.world, name)
        given = await asyncio.to_thread(_overrides, limit, entries)

        def update(world: World) -> World:
            known(world, name)
            merged = {(entry.limit, entry.prefix): entry for entry in world.desired.overrides}
            merged.update({(entry.limit, entry.prefix): entry for entry in given})
            return with_desired(world, overrides=tuple(merged[where] for where in sorted(merged)))

        detail: dict[str, Any] = {"overrides": len(given)}
        if len(given) == 1:
            detail = _override(given[0])
        world = await self._core.change(actor, "override.set", name, detail, update)
        return {"set": len(given), "overrides": world.overrides_of[name]}

    async def delete_override(self, actor: Actor, name: str, prefix: str) -> dict[str, Any]:
        """Raises NotFound when the limit has no override for the prefix."""
        wanted = canonical_prefix(prefix)

        def update(world: World) -> World:
            known(world, name)
            left = tuple(
                entry for entry in world.desired.overrides if (entry.limit, entry.prefix) != (name, wanted)
            )
            if len(left) == len(world.desired.overrides):
                raise NotFound(
                    f"limit {name} has no override for {wanted}", f"valkyrie-ctl limits show {name}"
                )
            return with_desired(world, overrides=left)

        await self._core.change(actor, "override.delete", name, {"prefix": wanted}, update)
        return {"deleted": wanted}


def _shown(world: World, limit: Limit, figures: Figures) -> dict[str, Any]:
    row = figures.limits[world.allotment.slots[limit.name].slot]
    return {
        **limit.model_dump(),
        "overrides": world.overrides_of[limit.name],
        "counters": {name: int(counter(row, name)) for name in COUNTERS},
    }


def known(world: World, name: str) -> Limit:
    if name not in world.limits:
        raise NotFound(f"there is no limit {name[:80]!r}", "valkyrie-ctl limits list shows them")
    return world.limits[name]


def _override(entry: Override) -> dict[str, Any]:
    return {"prefix": entry.prefix, "rate": entry.rate, "burst": entry.burst}


def _overrides(limit: Limit, entries: Sequence[dict[str, Any]]) -> list[Override]:
    """The overrides, each checked; an error names the index of the entry that is wrong."""
    return [
        checked(Override, {**fields, "limit": limit.name}, f"overrides[{index}]")
        for index, fields in enumerate(entries)
    ]
