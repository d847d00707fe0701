# SPDX-License-Identifier: Apache-2.0
"""The queue of notifications: order, bounds, restarts, kill -9, damaged files, full disks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ctl import ROOT
from support.dispatcher import OK, QUICK, dispatcher, settings, shown, titles
from support.fake_http import fake_http
from support.notes import note, until
from valkyrie.adapters.notify.message import Severity
from valkyrie.adapters.secrets import StaticSecrets
from valkyrie.control.errors import StateError
from valkyrie.control.notify.backlog import Backlog, Entry
from valkyrie.control.notify.book import MOST_DEAD, Book
from valkyrie.control.notify.dispatcher import Dispatcher, Surroundings
from valkyrie.control.notify.journal import FILE, Journal, Kept


def entry(number: int, severity: Severity = Severity.WARNING, key: str = "") -> Entry:
    return Entry(number, "ops", note(severity=severity, key=key or f"k{number}"), 0.0)


def test_a_full_backlog_drops_the_oldest_of_the_least_severity() -> None:
    backlog = Backlog(3)
    for one in (entry(1, Severity.CRITICAL), entry(2, Severity.INFO), entry(3, Severity.INFO)):
        assert backlog.add(one) == []
    assert [one.id for one in backlog.add(entry(4, Severity.ERROR))] == [2]
    assert [one.id for one in backlog.add(entry(5, Severity.ERROR))] == [3]
    assert [one.id for one in backlog.add(entry(6, Severity.INFO))] == [6]
    assert [one.id for one in backlog.entries] == [1, 4, 5]


def test_the_most_severe_goes_first_and_within_a_key_the_oldest() -> None:
    backlog = Backlog(10)
    for one in (
        entry(1, Severity.INFO, "a"),
        entry(2, Severity.WARNING, "b"),
        entry(3, Severity.CRITICAL, "b"),
    ):
        backlog.add(one)
    order = []
    while (one_more := backlog.take(0.0)) is not None:
        order.append(one_more.id)
        backlog.remove(one_more)
    assert order == [2, 3, 1]


def test_what_is_held_lets_others_pass_and_comes_when_due() -> None:
    backlog = Backlog(10)
    backlog.add(entry(1, Severity.CRITICAL, "a"))
    backlog.add(entry(2, Severity.INFO, "b"))
    backlog.hold("a", 5.0)
    assert backlog.next_due == 5.0
    taken = backlog.take(4.9)
    assert taken is not None
    assert taken.id == 2
    backlog.remove(taken)
    assert backlog.take(4.9) is None
    assert backlog.take(5.0) == entry(1, Severity.CRITICAL, "a")


def test_what_is_being_delivered_is_not_dropped() -> None:
    backlog = Backlog(1)
    backlog.add(entry(1, Severity.INFO))
    assert backlog.take(0.0) is not None
    assert backlog.add(entry(2, Severity.CRITICAL)) == []
    assert [one.id for one in backlog.add(entry(3, Severity.CRITICAL))] == [2]


@given(st.lists(st.tuples(st.sampled_from(Severity), st.sampled_from("abc"), st.booleans()), max_size=60))
def test_a_backlog_neither_loses_nor_invents(steps: list[tuple[Severity, str, bool]]) -> None:
    backlog, there, last = Backlog(5), set[int](), dict[str, int]()
    for number, (severity, key, take) in enumerate(steps, 1):
        gone = backlog.add(entry(number, severity, key))
        there = (there | {number}) - {one.id for one in gone}
        assert len(there) <= 6
        if take and (found := backlog.take(0.0)) is not None:
            assert found.id > last.get(found.message.key, 0)
            last[found.message.key] = found.id
            backlog.remove(found)
            there.remove(found.id)
        assert {one.id for one in backlog.entries} == there


def on_disk(folder: Path) -> Kept:
    with contextlib.closing(Journal(folder)) as journal:
        return journal.open()[0]


async def test_a_message_is_on_the_disk_before_submit_says_so_and_gone_when_delivered(tmp_path: Path) -> None:
    async with fake_http(None) as silent, dispatcher(tmp_path, settings(a=silent.url)) as made:
        assert await made.submit(note())
        with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as looking:
            assert looking.execute("SELECT adapter FROM queue").fetchall() == [("a",)]
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
        for suffix in ("-wal", "-shm"):
            assert (tmp_path / (FILE + suffix)).stat().st_mode & 0o077 == 0
    async with fake_http(OK) as server, dispatcher(tmp_path, settings(a=server.url)) as made:
        await until(lambda: shown(made, "a")["delivered"] == 1, "delivered")
        assert titles(server) == ["Drops above 10 %"]
    assert on_disk(tmp_path).queue == []


async def test_what_is_submitted_before_the_start_is_delivered(tmp_path: Path) -> None:
    async with fake_http(OK) as server:
        around = Surroundings(tmp_path, StaticSecrets({}), "edge-1", pace=QUICK)
        made = Dispatcher(settings(a=server.url), around)
        future = made.submit(note())
        task = asyncio.ensure_future(made.run())
        assert await future
        await until(lambda: len(server.requests) == 1, "delivered")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


KILLED = """
import asyncio, sys
from pathlib import Path
from support.notes import note
from valkyrie.adapters.notify.settings import NotifySettings
from valkyrie.adapters.secrets import StaticSecrets
from valkyrie.control.notify.dispatcher import Dispatcher, Surroundings

async def main():
    adapters = {"a": {"kind": "webhook", "url": "http://127.0.0.1:9/"}}
    made = Dispatcher(NotifySettings.model_validate({"adapters": adapters}),
                      Surroundings(Path(sys.argv[1]), StaticSecrets({}), "edge-1"))
    task = asyncio.ensure_future(made.run())
    for number in range(100000):
        assert await made.submit(note(title=str(number), key=f"k{number}"))
        print(number, flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_no_message_that_was_acknowledged(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT / ".src"), str(ROOT / "tests")])
    process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for _ in range(30):
            last = int(await asyncio.to_thread(process.stdout.readline))
        process.send_signal(signal.SIGKILL)
        rest = (await asyncio.to_thread(process.communicate))[0].split()
        last = max([last, *map(int, rest)])
    finally:
        process.kill()
        process.wait()
    async with fake_http(OK) as server, dispatcher(tmp_path, settings(a=server.url)):
        await until(lambda: {str(number) for number in range(last + 1)} <= set(titles(server)), "all")


async def test_a_full_queue_drops_the_least_urgent_and_says_so(tmp_path: Path) -> None:
    given = settings(a="http://127.0.0.1:9").model_copy(update={"queue_messages": 10})
    async with dispatcher(tmp_path, given) as made:
        await made.submit(note(title="urgent", key="u", severity=Severity.CRITICAL))
        for number in range(30):
            await made.submit(note(title=str(number), key=f"k{number}"))
        one = shown(made, "a")
        assert one["queued"] + one["dropped"] == 31
        assert one["queued"] in (10, 11)
    async with dispatcher(tmp_path, given) as made:
        await until(lambda: shown(made, "a")["state"] != "starting", "started")
        assert shown(made, "a")["dropped"] >= 20  # also after a restart
        await until(lambda: shown(made, "a")["queued"] == 10, "all")
    kept = on_disk(tmp_path).queue
    assert "urgent" in {one_more.message.title for one_more in kept}


async def test_a_damaged_queue_is_moved_aside_and_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    async with fake_http(OK) as server, dispatcher(tmp_path, settings(a=server.url)) as made:
        assert await made.submit(note())
        await until(lambda: len(server.requests) == 1, "delivered")
        assert "was damaged" in made.status()["queue"]["problem"]
        assert (tmp_path / f"{FILE}.damaged").read_bytes().startswith(b"this is no")


class Failing(Journal):
    full = True

    def apply(self, changes: Any) -> None:
        if self.full:
            raise StateError("the disk is full", "free some")
        super().apply(changes)


async def test_with_a_full_disk_messages_wait_in_memory_and_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valkyrie.control.notify.book.RETRY_S", 0.05)
    journal = Failing(tmp_path)
    book = Book(journal, 10)
    await book.open()
    book.add("a", note(), 0.0)
    assert not await book.saved()
    assert book.status() == {"problem": "the disk is full; free some", "durable": False}
    assert len(book.backlog("a")) == 1
    journal.full = False
    await until(lambda: book.durable, "written")
    await book.close()
    assert [one.message for one in on_disk(tmp_path).queue] == [note()]


async def test_a_queue_that_cannot_be_opened_at_first_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valkyrie.control.notify.book.RETRY_S", 0.05)
    first = Book(Journal(tmp_path), 10)
    await first.open()
    first.add("a", note(title="old"), 0.0)
    await first.close()
    journal = Journal(tmp_path / "x" / "..")
    aside = tmp_path / "aside"
    (tmp_path / FILE).rename(aside)
    (tmp_path / FILE).mkdir()  # cannot be opened as a file
    (tmp_path / "x").mkdir()
    second = Book(journal, 10)
    await second.open()
    assert not second.durable
    second.add("a", note(title="new"), 0.0)
    (tmp_path / FILE).rmdir()
    aside.rename(tmp_path / FILE)
    await until(lambda: second.durable, "open at last")
    await second.close()
    assert sorted(one.message.title for one in on_disk(tmp_path).queue) == ["new", "old"]


async def test_dead_messages_are_bounded_and_those_forgotten_counted(tmp_path: Path) -> None:
    book = Book(Journal(tmp_path), 10)
    await book.open()
    for _ in range(MOST_DEAD + 7):
        book.add("a", note(), 0.0)
        book.bury(book.backlog("a").entries[0], "no", 1.0)
    await book.close()
    kept = on_disk(tmp_path)
    assert (len(kept.dead), kept.counts["a"].forgotten) == (MOST_DEAD, 7)
