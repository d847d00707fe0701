# SPDX-License-Identifier: Apache-2.0
"""Calls between two stores of a migration, of which one does not answer."""

from __future__ import annotations

import asyncio

import pytest

from support.memory_store import MemoryStore, Server
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.migrate.front import Both
from valkyrie.adapters.migrate.migratable import whole
from valkyrie.adapters.migrate.mirror import Mirror
from valkyrie.adapters.store import Decision


class Hangs(MemoryStore):
    """A store that takes the tokens and never answers; `taken` is set then."""

    def __init__(self) -> None:
        super().__init__(Server("hangs"), StaticBook())
        self.taken = asyncio.Event()

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        await super().try_consume(key, n, limit=limit)
        self.taken.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody ends this")


@pytest.mark.parametrize("second", [False, True], ids=["at the first store", "at the second store"])
async def test_a_caller_who_gives_up_is_no_reason_not_to_tell_the_other_store(*, second: bool) -> None:
    hangs, answers = Hangs(), MemoryStore(Server("answers"), StaticBook())
    primary, secondary = (answers, hangs) if second else (hangs, answers)
    mirror = Mirror(lambda: whole(primary).side(), lambda: whole(secondary).side())
    both = Both(lambda: primary, lambda: secondary, mirror, StaticBook())
    call = asyncio.create_task(both.try_consume("a", limit=Limit.of("mine", "1/h", "5")))
    async with asyncio.timeout(5):
        await hangs.taken.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert mirror.waiting
