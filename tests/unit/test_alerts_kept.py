# SPDX-License-Identifier: Apache-2.0
"""What a service keeps of its alerts: over restarts, kills, damaged files, and a dispatcher of no help."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support.alerting import DROPS, NOW, Told, flood, flooded, use
from support.workbench import ADMIN, WEB, Bench
from valkyrie.adapters.notify.message import Message
from valkyrie.control.alerts.outbox import MOST
from valkyrie.control.alerts.rules import made
from valkyrie.control.errors import StateError, Unavailable


async def test_what_fires_survives_a_restart_without_being_told_again_and_ends_if_it_is_gone(
    bench: Bench,
) -> None:
    told = await flooded(bench)
    await bench.again()
    again = Told(bench.service)
    await flood(bench, 20)
    assert again.messages == []
    assert [one["rule"] for one in (await bench.service.alerts.list())["alerts"]] == ["web-drops"]
    await flood(bench, 10, per_second=0)
    assert again.states() == ["resolved"]
    assert again.messages[0].key == told.messages[0].key


async def test_a_daemon_that_was_killed_leaves_a_state_that_the_next_one_takes_up(bench: Bench) -> None:
    await flooded(bench)
    bench.service.alerts._watch.book.close()
    await bench.service.core.close()  # without a word of the alerts
    bench.service = bench._make()
    await bench.service.start()
    told = use(bench, rules=(made("again", {"when": "daemon-restarted"}),))
    await flood(bench, 5)
    assert [message.tags["rule"] for message in told.messages] == ["again"]
    assert "without a word" in told.messages[0].title


class Killed(BaseException):
    """Here the process is killed."""


async def test_a_daemon_that_is_killed_while_it_tells_ends_what_it_told_under_the_same_key(
    bench: Bench,
) -> None:
    told = use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    take = told.submit

    def submit(message: Message) -> asyncio.Future[bool]:
        take(message)
        raise Killed

    bench.service.alerts.submit_to(submit)
    with pytest.raises(Killed):
        await flood(bench, 3)
    bench.service.alerts._watch.book.close()
    await bench.service.core.close()
    bench.service = bench._make()
    await bench.service.start()
    again = Told(bench.service)
    await flood(bench, 3)
    await flood(bench, 10, per_second=0)
    assert again.states()[-1] == "resolved"
    assert {one.key for one in again.messages} == {told.messages[0].key}


async def test_messages_that_nobody_took_are_handed_over_after_the_restart(bench: Bench) -> None:
    told = use(bench)
    told.refuse = Unavailable("the queue is full", "empty it")
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    await flood(bench, 3)
    assert "1 messages wait: the queue is full" in bench.service.alerts.status()["problems"][0]
    await bench.again()
    again = Told(bench.service)
    await flood(bench, 2)
    assert again.states() == ["firing"]


async def test_a_dispatcher_that_never_answers_holds_up_nothing(bench: Bench) -> None:
    told = use(bench)
    told.answer = None
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    async with asyncio.timeout(20):
        for _ in range(12):
            await flood(bench, 3)
            await flood(bench, 10, per_second=0)
    assert told.states() == ["firing", "resolved"] * 6, "as many as an hour may have"


async def test_of_messages_that_nobody_takes_the_oldest_are_given_up_and_counted(bench: Bench) -> None:
    told = use(bench)
    told.refuse = Unavailable("no", "")
    outbox = bench.service.alerts._watch.outbox
    for n in range(MOST + 5):
        outbox.put([Message(str(n), "", made("a", {"when": "nic-down"}).level, 0.0, "k")])
        await outbox.push(0)
    assert (len(outbox.waiting()), outbox.waiting()[0].title) == (MOST, "5")
    assert "5 messages could not be told" in " ".join(bench.service.alerts.status()["problems"])


async def test_the_history_is_bounded(bench: Bench) -> None:
    use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", {**DROPS, "clear_after": "1s"})
    for _ in range(60):
        await flood(bench, 2, per_second=2000)
        bench.time.now += 10
        await flood(bench, 2, per_second=0)
        bench.time.now += 10
        await flood(bench, 1, per_second=0)
    rows = (await bench.service.alerts.history(1000))["history"]
    assert len(rows) == NOW.history


async def test_a_damaged_state_is_put_aside_and_alerts_go_on(bench: Bench) -> None:
    (bench.folder / "alerts.db").write_bytes(b"not a database at all" * 1000)
    told = await flooded(bench)
    assert told.states() == ["firing"]
    assert (bench.folder / "alerts.damaged").exists()


async def test_a_state_of_a_later_version_is_put_aside(bench: Bench) -> None:
    with sqlite3.connect(bench.folder / "alerts.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    await flooded(bench)
    assert (bench.folder / "alerts.damaged").exists()


async def test_what_was_kept_and_is_not_understood_is_said_and_left(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await flooded(bench)
    with sqlite3.connect(bench.folder / "alerts.db") as connection:
        connection.execute("UPDATE meta SET value = '[1]'")
        connection.execute('UPDATE rules SET fields = \'{"when": "weather"}\'')
    connection.close()
    bench.service.alerts._watch.book.close()
    await bench.service.core.close()
    bench.service = bench._make()
    await bench.service.start()
    Told(bench.service)
    await bench.service.alerts.look()
    assert "is not understood" in caplog.text
    assert (await bench.service.alerts.rules())["rules"] == []


async def test_a_folder_that_cannot_be_written_keeps_no_alert_from_being_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = use(bench, rules=(made("again", {"when": "nic-detached", "for": "0s"}),))

    def full(*_: Any) -> None:
        raise StateError("no space left", "free some")

    monkeypatch.setattr(bench.service.alerts._watch.book, "write", full)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.nics.attach(ADMIN, "eth1", mode="auto", confirm=None, replacing=False, protect=[])
    bench.engine.links["eth1"] = ""
    await flood(bench, 2)
    assert told.states() == ["firing"]
    assert "no space left; free some" in bench.service.alerts.status()["problems"]
    monkeypatch.undo()
    await flood(bench, 1)
    assert bench.service.alerts.status()["problems"] == []
    assert [one["rule"] for one in (await bench.service.alerts.history(5))["history"]] == ["again"]


async def test_only_the_daemon_and_root_read_the_file(bench: Bench) -> None:
    await flooded(bench)
    assert (Path(bench.folder) / "alerts.db").stat().st_mode & 0o777 == 0o600
