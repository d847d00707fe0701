# SPDX-License-Identifier: Apache-2.0
"""A bench's service that exports its telemetry to a collector."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from support.workbench import ADMIN, Bench

SECRET = b"authorization=Bearer%20wordy-secret"


@contextlib.asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.ensure_future(bench.service.telemetry.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def enable(bench: Bench, url: str, **more: Any) -> dict[str, Any]:
    return await bench.service.telemetry.change(
        ADMIN, {"enabled": True, "endpoint": url, "interval_seconds": 1, **more}
    )
