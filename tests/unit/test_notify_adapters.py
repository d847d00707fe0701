# SPDX-License-Identifier: Apache-2.0
"""Adapters and routes of notifications: who gets a message; changed while it runs, wrong, and tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.dispatcher import OK, dispatcher, settings, shown
from support.fake_http import answer, fake_http
from support.notes import SECRET, note, until
from valkyrie.adapters.notify.message import Severity
from valkyrie.adapters.notify.settings import Route
from valkyrie.control.errors import Conflict, InvalidInput, NotFound
from valkyrie.control.notify.routes import targets


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


async def test_messages_without_a_route_are_counted(tmp_path: Path) -> None:
    async with dispatcher(tmp_path, settings(a="http://127.0.0.1:9")) as made:
        await made.submit(note(severity=Severity.INFO))
        assert made.status()["unrouted"] == 1


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
