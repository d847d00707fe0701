# SPDX-License-Identifier: Apache-2.0
"""The whole policy as one document: export it, and apply one, declaratively and all or nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from valkyrie.control.audit import Actor
from valkyrie.control.diff import diff
from valkyrie.control.document import from_document, to_document
from valkyrie.control.service.core import Core
from valkyrie.control.service.world import World, with_desired


class Policy:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def export(self) -> dict[str, Any]:
        return await asyncio.to_thread(to_document, self._core.world.desired)

    async def apply(self, actor: Actor, document: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Make the policy the document's; what it does not name is deleted.

        A dry run compiles too, so that what it says would work does. Raises InvalidInput naming the field.
        """
        wanted = await asyncio.to_thread(from_document, document)
