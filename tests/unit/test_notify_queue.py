# SPDX-License-Identifier: Apache-2.0
"""The queue of notifications: order, bounds, restarts, kill -9, full disks; commands by message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ctl import ROOT
from support.fake_http import FakeHttp, answer, fake_http
from support.notes import SECRET, note, until
from valkyrie.adapters.notify.message import Severity
from valkyrie.adapters.notify.settings import NotifySettings, Route
from valkyrie.adapters.secrets import StaticSecrets
from valkyrie.control.errors import Conflict, InvalidInput, NotFound, PermissionRefused, StateError
from valkyrie.control.notify.backlog import Backlog, Entry
from valkyrie.control.notify.book import MOST_DEAD, Book
from valkyrie.control.notify.commands import AHEAD_S, FRESH_S, Judge, envelope, opened
from valkyrie.control.notify.dispatcher import Dispatcher, Surroundings
from valkyrie.control.notify.journal import FILE, Journal, Kept
from valkyrie.control.notify.routes import targets
from valkyrie.control.notify.worker import Pace

QUICK = Pace(attempts=3, round_s=5.0, first_s=0.01, most_s=0.02, jitter_s=0.0, hold_s=0.05, hold_most_s=0.1)
OK = answer(200)


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


def test_routes_choose_by_severity_and_all_tags() -> None:
    routes = [
        Route(severity="warning", to=("a",)),
        Route(severity="info", tags={"limit": "web"}, to=("b", "a")),
        Route(severity="critical", tags={"limit": "*", "nic": "eth0"}, to=("c",)),
    ]
    assert targets(note(severity=Severity.INFO, limit="dns"), routes) == []
    assert targets(note(severity=Severity.INFO, limit="web"), routes) == ["b", "a"]
    assert targets(note(severity=Severity.ERROR, limit="web"), routes) == ["a", "b"]
    assert targets(note(severity=Severity.CRITICAL, limit="x", nic="eth0"), routes) == ["a", "c"]
    assert targets(note(severity=Severity.CRITICAL, nic="eth0"), routes) == ["a"]


def settings(routes: Any = (), **urls: str) -> NotifySettings:
    adapters = {name: {"kind": "webhook", "url": url, "timeout_seconds": 1.0} for name, url in urls.items()}
    return NotifySettings.model_validate({"adapters": adapters, "routes": routes})


@contextlib.asynccontextmanager
async def dispatcher(folder: Path, given: NotifySettings, **more: Any) -> AsyncIterator[Dispatcher]:
    around = Surroundings(folder, StaticSecrets({"it": SECRET}), "edge-1", pace=QUICK, **more)
    made = Dispatcher(given, around)
    task = asyncio.ensure_future(made.run())
    try:
        await until(lambda: made._open, "open")
        yield made
    finally:
        task.cancel()
        began = time.monotonic()
        await asyncio.gather(task, return_exceptions=True)
        assert time.monotonic() - began < 2.5


def on_disk(folder: Path) -> Kept:
    with contextlib.closing(Journal(folder)) as journal:
        return journal.open()[0]


def titles(server: FakeHttp) -> list[str]:
    return [json.loads(request.body)["title"] for request in server.requests]


def shown(made: Dispatcher, name: str) -> dict[str, Any]:
    return next(one for one in made.status()["adapters"] if one["name"] == name)


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


async def test_failures_are_repeated_until_the_service_is_well(tmp_path: Path) -> None:
    bad = [answer(500), answer(503), b"", answer(429, Retry_After="0"), answer(500)]
    told: list[str] = []
    async with fake_http(*bad, OK) as server:
        given = settings(a=server.url)
        async with dispatcher(tmp_path, given, tell=lambda kind, what: told.append(f"{kind} {what}")) as made:
            await made.submit(note())
            await until(lambda: shown(made, "a")["delivered"] == 1, "delivered")
            one = shown(made, "a")
            assert (one["state"], one["failures"], one["queued"], one["dead"]) == ("ok", 5, 0, 0)
    assert told == ["notify a: answered 500", "notify a: delivers again"]


async def test_a_final_refusal_is_dead_and_shown_and_can_be_tried_again(tmp_path: Path) -> None:
    async with fake_http(answer(401, "no such token"), OK) as server:
        async with dispatcher(tmp_path, settings(a=server.url)) as made:
            await made.submit(note())
            await until(lambda: shown(made, "a")["dead"] == 1, "dead")
            (dead,) = made.status()["dead"]
            assert (dead["title"], dead["why"]) == ("Drops above 10 %", "answered 401: no such token")
            await made.submit(note(title="next", key="other"))
            await until(lambda: shown(made, "a")["delivered"] == 1, "the next is not held up")
            assert titles(server) == ["Drops above 10 %", "next"]
        async with dispatcher(tmp_path, settings(a=server.url)) as made:
            await until(lambda: made.status()["dead"] != [], "still dead after a restart")
            assert (await made.retry("a"))["revived"] == 1
            await until(lambda: shown(made, "a")["delivered"] == 1, "revived")
            assert made.status()["dead"] == []


async def test_a_person_ends_the_wait_that_a_service_asked_for(tmp_path: Path) -> None:
    async with (
        fake_http(answer(429, Retry_After="3600"), OK) as server,
        dispatcher(tmp_path, settings(a=server.url)) as made,
    ):
        await made.submit(note())
        await until(lambda: shown(made, "a")["failures"] == 1, "told to wait")
        await asyncio.sleep(0.1)
        assert len(server.requests) == 1
        await made.retry("a")
        await until(lambda: shown(made, "a")["delivered"] == 1, "tried at once", 5)


async def test_a_message_is_given_up_after_its_time(tmp_path: Path) -> None:
    async with fake_http(answer(500)) as server:
        given = settings(a=server.url).model_copy(update={"give_up_seconds": 0.2})
        async with dispatcher(tmp_path, given) as made:
            await made.submit(note())
            await until(lambda: shown(made, "a")["dead"] == 1, "given up")
            assert "given up after" in made.status()["dead"][0]["why"]


async def test_a_clock_that_is_set_gives_up_no_message(tmp_path: Path) -> None:
    wall = [1e6]
    async with (
        fake_http(*[answer(500)] * 4, OK) as server,
        dispatcher(tmp_path, settings(a=server.url), wall=lambda: wall[0]) as made,
    ):
        await made.submit(note())
        wall[0] = 1.7e9
        await until(lambda: shown(made, "a")["delivered"] == 1, "delivered all the same")


async def test_the_time_before_a_restart_counts_for_giving_up(tmp_path: Path) -> None:
    given = settings(a="http://127.0.0.1:9").model_copy(update={"give_up_seconds": 3600})
    async with dispatcher(tmp_path, given, wall=lambda: 1e6) as made:
        await made.submit(note())
    async with dispatcher(tmp_path, given, wall=lambda: 1e6 + 3601) as made:
        await until(lambda: shown(made, "a")["dead"] == 1, "given up")


async def test_one_message_that_never_goes_through_stops_no_other(tmp_path: Path) -> None:
    async with (
        fake_http(answer(500), answer(500), answer(500), OK) as server,
        dispatcher(tmp_path, settings(a=server.url)) as made,
    ):
        await made.submit(note(title="poison", severity=Severity.CRITICAL))
        await until(lambda: len(server.requests) >= 1, "begun")
        await made.submit(note(title="good", key="other", severity=Severity.INFO))
        await made.submit(note(title="good", key="other"))
        await until(lambda: titles(server)[3:4] == ["good"], "passed")


async def test_a_dead_and_a_silent_adapter_do_not_delay_a_good_one(tmp_path: Path) -> None:
    async with (
        fake_http(None) as silent,
        fake_http(OK) as good,
        dispatcher(tmp_path, settings(dead="http://127.0.0.1:9", silent=silent.url, good=good.url)) as made,
    ):
        await made.submit(note(title="warm"))  # the libraries are loaded once
        await until(lambda: len(good.requests) == 1, "warm")
        began = time.monotonic()
        for number in range(50):
            await made.submit(note(title=str(number), key=f"k{number}"))
        await until(lambda: len(good.requests) == 51, "the good one has all")
        assert time.monotonic() - began < 5
        assert shown(made, "dead")["queued"] == shown(made, "silent")["queued"] == 51
        assert shown(made, "dead")["state"] == "failing"


async def test_names_that_nobody_answers_for_do_not_delay_a_good_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, answering = socket.getaddrinfo, threading.Event()

    def slowly(host: Any, *rest: Any, **more: Any) -> Any:
        if str(host).startswith("dead") and not more.get("flags"):
            answering.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return ask(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    dead = {f"dead{number}": f"http://dead{number}.example/" for number in range(31)}
    try:
        async with (
            fake_http(OK) as good,
            dispatcher(tmp_path, settings(**dead, good=good.url)) as made,
        ):
            await made.submit(note())
            await until(lambda: shown(made, "dead30")["state"] == "failing", "the names hang", 15)
            began = time.monotonic()
            await made.submit(note(key="second"))
            await until(lambda: len(good.requests) == 2, "the good one has both", 8)
            assert time.monotonic() - began < 5
    finally:
        answering.set()


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


async def test_messages_without_a_route_are_counted(tmp_path: Path) -> None:
    async with dispatcher(tmp_path, settings(a="http://127.0.0.1:9")) as made:
        await made.submit(note(severity=Severity.INFO))
        assert made.status()["unrouted"] == 1


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


async def test_adapters_are_added_and_removed_while_it_runs_and_outlive_a_restart(tmp_path: Path) -> None:
    async with fake_http(OK) as server:
        async with dispatcher(tmp_path, settings()) as made:
            await made.submit(note())
            await until(lambda: made.status()["unrouted"] == 1, "nobody")
            await made.add("late", {"kind": "webhook", "url": server.url, "credential": "it"}, "error", {})
            await made.submit(note(severity=Severity.ERROR))
            await until(lambda: len(server.requests) == 1, "delivered")
        assert (tmp_path / "notify.json").stat().st_mode & 0o777 == 0o600
        async with dispatcher(tmp_path, settings()) as made:
            await until(lambda: bool(made.status()["adapters"]), "there again")
            assert shown(made, "late")["routes"] == [{"severity": "error", "tags": {}}]
            await made.remove("late")
            with pytest.raises(NotFound):
                await made.remove("late")
    assert json.loads((tmp_path / "notify.json").read_text())["adapters"] == {}


async def test_an_adapter_of_the_settings_is_changed_there_alone(tmp_path: Path) -> None:
    async with fake_http(OK) as server, dispatcher(tmp_path, settings(a="http://127.0.0.1:9")) as made:
        await made.submit(note())
        with pytest.raises(Conflict, match=r"valkyrie\.yaml"):
            await made.remove("a")
        with pytest.raises(Conflict, match=r"valkyrie\.yaml"):
            await made.add("a", {"kind": "console"}, "info", {})
        await made.reload(settings(a=server.url))
        await until(lambda: len(server.requests) == 1, "what waited goes to the new place")
        await made.reload(settings(b=server.url))
        assert [one["name"] for one in made.status()["adapters"]] == ["b"]


async def test_an_adapter_that_goes_buries_what_waited_for_it(tmp_path: Path) -> None:
    async with dispatcher(tmp_path, settings(a="http://127.0.0.1:9")) as made:
        await made.submit(note())
        await made.reload(settings())
        assert made.status()["dead"][0]["why"] == "there is no such adapter any more"


async def test_damaged_additions_are_told_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notify.json").touch(mode=0o600)
    (tmp_path / "notify.json").write_text('{"version": 1, "adapters": {"x": 7}}')
    async with dispatcher(tmp_path, settings()) as made:
        await until(lambda: "damaged" in made.status()["problem"], "told")
        with pytest.raises(Conflict):
            await made.add("a", {"kind": "console"}, "info", {})


@pytest.mark.parametrize("fields", [
    {}, {"kind": "fax"}, {"kind": "slack"}, {"kind": "slack", "credential": "it", "token": SECRET},
    {"kind": "slack", "credential": SECRET + " $"}, {"kind": "webhook", "url": f"https://u:{SECRET}@x/"},
    {"kind": "webhook", "url": f"https://x/?token={SECRET}"},
    {"kind": "smtp", "host": "x", "from": SECRET, "to": "a@b"},
    {"kind": "mqtt", "host": "x", "encryption": "none", "username": "u", "credential": "it"},
    {"kind": "slack", "credential": "it", "channel": "c", "url": "http://192.0.2.1"},
])  # fmt: skip
async def test_wrong_settings_are_refused_and_not_quoted(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with dispatcher(tmp_path, settings()) as made:
        with pytest.raises(InvalidInput) as caught:
            await made.add("a", fields, "info", {})
    assert SECRET not in str(caught.value) + caught.value.where


async def test_a_test_reports_what_the_service_answered_and_leaves_the_queue_alone(tmp_path: Path) -> None:
    async with (
        fake_http(answer(200, "thanks"), answer(429, "later", Retry_After="9")) as server,
        dispatcher(tmp_path, settings(a=server.url)) as made,
    ):
        await until(lambda: bool(made._running), "started")
        good, bad = await made.test("a"), await made.test("a")
        assert (good["ok"], good["answer"]) == (True, "answered 200: thanks")
        assert (bad["ok"], bad["answer"], bad["retry_after"]) == (False, "answered 429: later", 9.0)
        assert shown(made, "a")["queued"] == 0
        with pytest.raises(NotFound):
            await made.test("none")


KEY = b"0123456789abcdef"


def command(**changes: Any) -> dict[str, Any]:
    made = {"node": "n", "command": "ban", "id": "1", "time": 1000.0, "nonce": "n" * 16, "arguments": {}}
    return {**made, **changes}


def test_a_command_is_signed_by_the_text_of_its_body() -> None:
    assert opened(envelope(KEY, command()), KEY) == command()
    forged = json.loads(envelope(KEY, command()))
    forged["body"] = forged["body"].replace("ban", "all")
    for payload in (json.dumps(forged).encode(), b"7", b'{"body": 1, "signature": 2}', b"x" * 20000):
        with pytest.raises(PermissionRefused):
            opened(payload, KEY)
    with pytest.raises(PermissionRefused):
        opened(envelope(b"another key, quite", command()), KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "other"}, {"command": "limits-set"}, {"time": 1000.0 - FRESH_S - 1},
        {"time": 1000.0 + AHEAD_S + 1}, {"time": 10**400}, {"time": float("nan")}, {"time": "now"},
        {"time": True}, {"nonce": "short"}, {"id": "a/b"}, {"id": 7}, {"arguments": []}, {"more": 1},
        {"time": 989.0},
    ],
)  # fmt: skip
def test_commands_that_are_stale_misdirected_or_malformed_are_refused(changes: dict[str, Any]) -> None:
    judge = Judge("n", started=990.0)
    with pytest.raises((PermissionRefused, InvalidInput)):
        judge.admit(command(**changes), "ban", 1000.0)
    assert judge.admit(command(), "ban", 1000.0).name == "ban"


def test_no_command_is_admitted_again_by_a_restart_whatever_the_senders_clock() -> None:
    for ahead in (-30.0, -1.0, 0.0, 1.0, AHEAD_S):
        sent = command(time=1000.0 + ahead)
        Judge("n", started=0.0).admit(sent, "ban", 1000.0)
        after = Judge("n", started=1000.0)
        for now in range(1000, 1100):
            with pytest.raises(PermissionRefused):
                after.admit(sent, "ban", float(now))


def test_a_clock_that_jumps_and_comes_back_admits_no_command_again() -> None:
    judge = Judge("n", started=0.0)
    judge.admit(command(), "ban", 1000.0)
    judge.admit(command(time=5000.0, nonce="x" * 16), "ban", 5000.0)
    with pytest.raises(PermissionRefused, match="sent before"):
        judge.admit(command(), "ban", 1010.0)


def test_commands_are_admitted_once_and_so_many_a_second() -> None:
    judge = Judge("n", started=0.0)
    judge.admit(command(), "ban", 1000.0)
    with pytest.raises(PermissionRefused, match="sent before"):
        judge.admit(command(), "ban", 1001.0)
    admitted = 0
    for number in range(100):
        with contextlib.suppress(PermissionRefused):
            judge.admit(command(nonce=f"{number:016}", time=1002.0), "ban", 1002.0)
            admitted += 1
    assert admitted == 20
