# SPDX-License-Identifier: Apache-2.0
"""The whole policy as one document: export it, and apply one, declaratively and all or nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from valkyrie.control.audit import Actor
from valkyrie.control.service.core import Core


class Policy:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def export(self) -> dict[str, Any]:
        from valkyrie.control.document import to_document
        return await asyncio.to_thread(to_document, self._core.world.desired)
