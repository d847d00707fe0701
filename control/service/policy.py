# SPDX-License-Identifier: Apache-2.0
"""The whole policy as one document: export it, and apply one, declaratively and all or nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

from valkyrie.control.audit import Actor
from valkyrie.control.diff import Diff, diff
from valkyrie.control.document import from_document, to_document
from valkyrie.control.service.core import Core


class Policy:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def export(self) -> dict[str, Any]:
        return await asyncio.to_thread(to_document, self._core.world.desired)

    async def apply(self, actor: Actor, document: dict[str, Any]) -> dict[str, Any]:
        """Make the policy the document's; what it does not name is deleted. Answers with the difference.

        Raises InvalidInput naming the field, Conflict; then nothing has changed.
        """
        wanted = await asyncio.to_thread(from_document, document)

        def work() -> Diff:
            found = diff(self._core.world.desired, wanted)
            if found:
                counts = dict(Counter(f"{one.kind} {one.change}" for one in found.changes))
                self._core.make(actor, "apply", "", counts, lambda now: replace(now, desired=wanted))
            return found

        found = await self._core.in_turn(work)
        await self._core.after_change()
        return {"diff": found.entries(), "applied": True}

    async def compare(self, document: dict[str, Any]) -> dict[str, Any]:
        """What `apply` would change. Raises as it does: what passes here can be applied."""
        wanted = await asyncio.to_thread(from_document, document)

        def work() -> Diff:
            world = self._core.world
            found = diff(world.desired, wanted)
            if found:
                self._core.try_out(replace(world, desired=wanted))
            return found

        found = await self._core.in_turn(work)
        return {"diff": found.entries(), "applied": False}
