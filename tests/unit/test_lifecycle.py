# SPDX-License-Identifier: Apache-2.0
"""The parts of the daemon that must not end, and how they end all the same."""

from __future__ import annotations

import asyncio

import pytest

from valkyrie.control import lifecycle


async def test_a_part_that_fails_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "RETRY_S", 0)
    begun = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            again.set()
        raise OSError("broken")

    task = asyncio.create_task(lifecycle.forever("work", work))
    await asyncio.wait_for(again.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_part_whose_cleaning_up_fails_ends_when_cancelled() -> None:
    waiting = asyncio.Event()

    async def work() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            raise OSError("its descriptor is closed already")

    task = asyncio.create_task(lifecycle.forever("work", work))
    await waiting.wait()
    task.cancel()
    await asyncio.wait_for(asyncio.shield(task), 5)
    assert task.done()
