# SPDX-License-Identifier: Apache-2.0
"""Nobody decides by a migration's note that is older than others wait for it to be seen."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest

from support.memory_store import MemoryStore, Server
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.errors import StoreConnectionError, StoreUnavailable
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.migrate import migratable
from valkyrie.adapters.migrate.migratable import Migratable
from valkyrie.adapters.migrate.note import DOCUMENT, HELD_S, UNNOTED_S, Note, Phase
from valkyrie.adapters.migrate.side import Side

LIMIT = Limit.of("mine", "1/h", "5")


class Noted(MemoryStore):
    """A store whose documents fail apart from its decisions."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, StaticBook())
        self.documents: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.reads = 0

    async def get_document(self, name: str) -> bytes | None:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.documents.get(name)

    def side(self) -> Side:
        raise StoreConnectionError("nothing is mirrored here")


class Pair:
    """Source and target of a migration and a caller whose clock can jump, as when it was stopped."""

    def __init__(self) -> None:
        self.late = 0.0
        self.stores = {name: Noted(Server(name)) for name in ("source", "target")}
        self.source, self.target = self.stores["source"], self.stores["target"]
        self.caller = Migratable("source", self.stores.__getitem__, StaticBook(), self.clock)

    def clock(self) -> float:
        return time.monotonic() + self.late

    def note(self, phase: Phase, serial: int) -> None:
        for store in self.stores.values():
            store.documents[DOCUMENT] = Note(1, serial, "source", "target", phase).packed()

    async def decider(self) -> str:
        return (await self.caller.try_consume("a", limit=LIMIT)).store


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 nothing tells of it
            await asyncio.sleep(0.01)


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """Nothing looks in the background."""
    monkeypatch.setattr(migratable, "POLL_S", 3600.0)
    monkeypatch.setattr(migratable, "BUSY_POLL_S", 3600.0)
    made = Pair()
    yield made
    await made.caller.close()


@pytest.mark.parametrize("noted", [True, False], ids=["that saw the copy", "that saw nothing"])
async def test_a_caller_that_was_stopped_over_the_switch_asks_the_target(pair: Pair, *, noted: bool) -> None:
    if noted:
        pair.note("copying", 1)
    await pair.caller.start()
    assert await pair.decider() == "source"
    pair.note("cutover", 3)
    pair.late += UNNOTED_S + 0.1
    assert await pair.decider() == "target"


async def test_a_caller_that_cannot_read_an_old_note_again_decides_nothing(pair: Pair) -> None:
    pair.note("copying", 1)
    await pair.caller.start()
    await until(lambda: pair.target.server.open == 1)
    pair.source.failure = pair.target.failure = StoreConnectionError("away")
    assert await pair.decider() == "source"
    pair.late += HELD_S + 0.1
    with pytest.raises(StoreUnavailable):
        await pair.decider()
    with pytest.raises(StoreUnavailable):
        await pair.caller.increment("n")
    assert pair.source.server.consumed == 1
    pair.source.failure = pair.target.failure = None
    pair.late += HELD_S
    assert await pair.decider() == "source"


async def test_a_target_that_does_not_answer_takes_no_decision_away(pair: Pair) -> None:
    pair.note("copying", 1)
    await pair.caller.start()
    await until(lambda: pair.target.server.open == 1)
    pair.target.failure = StoreConnectionError("away")
    pair.late += HELD_S + 0.1
    assert await pair.decider() == "source"


async def test_a_store_that_lost_the_note_proves_no_end_while_the_other_is_away(pair: Pair) -> None:
    pair.note("switching", 2)
    await pair.caller.start()
    pair.source.documents.clear()
    pair.target.failure = StoreConnectionError("away")
    pair.late += HELD_S + 0.1
    with pytest.raises(StoreUnavailable):
        await pair.decider()


async def test_the_end_is_seen_though_the_store_that_was_left_is_gone(pair: Pair) -> None:
    pair.note("aborting", 4)
    await pair.caller.start()
    pair.source.documents.clear()
    pair.target.failure = StoreConnectionError("away")
    pair.late += HELD_S + 0.1
    assert await pair.decider() == "source"
    assert "migration" not in pair.caller.stats().extra


async def test_between_two_migrations_no_call_goes_to_the_store_that_was_left(pair: Pair) -> None:
    pair.note("cutover", 3)
    await pair.caller.start()
    for store in pair.stores.values():
        store.documents[DOCUMENT] = Note(2, 1, "target", "source", "copying").packed()
    pair.late += HELD_S + 0.1
    assert {await one for one in [asyncio.create_task(pair.decider()) for _ in range(20)]} == {"target"}


async def test_without_a_migration_an_unreadable_note_takes_no_store_away(pair: Pair) -> None:
    await pair.caller.start()
    pair.source.failure = StoreConnectionError("away")
    pair.late += UNNOTED_S + 0.1
    before = pair.source.reads
    for _ in range(50):
        assert await pair.decider() == "source"
    assert pair.source.reads == before + 1, "no call looks again at once"


async def test_without_a_migration_calls_in_time_read_no_note(pair: Pair) -> None:
    await pair.caller.start()
    before = pair.source.reads
    for _ in range(50):
        await pair.decider()
    assert pair.source.reads == before


async def test_an_unforeseen_error_ends_no_following_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(migratable, "POLL_S", 0.01)
    pair = Pair()
    await pair.caller.start()
    try:
        pair.source.failure = RuntimeError("a bug")
        with caplog.at_level(logging.ERROR):
            await until(lambda: pair.source.reads >= 5)
            pair.source.failure = None
            pair.note("cutover", 3)
            await until(lambda: pair.caller.backend_name == "target")
        assert len([one for one in caplog.records if one.exc_info]) == 1
    finally:
        await pair.caller.close()
