# SPDX-License-Identifier: Apache-2.0
"""What must come to its end although the task that waits for it is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """The work's result. A cancellation is raised when it is done; the work bounds how long that takes.
    Cancelled twice, the work is cancelled as well.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
