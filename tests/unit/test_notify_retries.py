# SPDX-License-Identifier: Apache-2.0
"""Notifications that fail: repeated, given up, tried again by hand, and in nobody else's way."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.dispatcher import OK, dispatcher, settings, shown, titles
from support.fake_http import answer, fake_http
from support.notes import note, until
from valkyrie.adapters.notify.message import Severity


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
