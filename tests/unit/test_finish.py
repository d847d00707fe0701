# SPDX-License-Identifier: Apache-2.0
"""Work that outlasts the cancellation of whoever waits for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from valkyrie.control.finish import to_its_end


async def test_it_hands_on_what_the_work_gives_and_raises() -> None:
    async def failing() -> None:
        raise KeyError("u")

    assert await to_its_end(asyncio.sleep(0, 7)) == 7
    with pytest.raises(KeyError):
        await to_its_end(failing())


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_cancellation_is_raised_once_the_work_is_done(steps: int) -> None:
    may_end, done = threading.Event(), []

    def work() -> None:
        assert may_end.wait(10)
        done.append(True)

    waiting = asyncio.ensure_future(to_its_end(asyncio.to_thread(work)))
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    asyncio.get_running_loop().call_later(0.01, may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done


async def test_cancelled_again_it_waits_no_longer() -> None:
    waiting = asyncio.ensure_future(to_its_end(asyncio.Event().wait()))
    for _ in range(2):
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
