# SPDX-License-Identifier: Apache-2.0
"""Notifications over the API and the command line, commands by message, mistakes in the settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ctl import Ctl, ctl_with, environment
from support.fake_http import answer, fake_http
from support.notes import SECRET, note, until
from support.served import Served, served
from support.workbench import WEB
from valkyrie.adapters.notify.message import Severity
from valkyrie.control.audit import Actor
from valkyrie.control.config import Settings, parse_settings
from valkyrie.control.durable.role import Role
from valkyrie.control.errors import InvalidInput


@contextlib.asynccontextmanager
async def notifying(folder: Path, **more: Any) -> AsyncIterator[Served]:
    settings = Settings(state_dir=folder, socket=folder / "s", **more)
    async with served(settings) as made:
        task = asyncio.ensure_future(made.service.notifications.run())
        try:
            await until(lambda: made.service.notifications.dispatcher._open, "open")
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_an_adapter_is_added_tested_used_and_removed_by_the_api(tmp_path: Path) -> None:
    async with fake_http(answer(200, "thanks")) as server, notifying(tmp_path) as made:
        body = {
            "settings": {"kind": "webhook", "url": server.url, "credential": "hook-key"},
            "severity": "info",
        }
        status, told = await made.call("PUT", "/v1/notify/hook", body)
        assert (status, told["from"], told["kind"]) == (200, "cli", "webhook")
        status, told = await made.call("POST", "/v1/notify/hook/test")
        assert (status, told["ok"]) == (200, False)
        assert told["answer"] == "there is no credential hook-key"
        assert (await made.call("GET", "/v1/creds"))[1]["missing"] == ["hook-key"]
        await made.call("PUT", "/v1/creds/hook-key", {"value": SECRET})
        status, told = await made.call("POST", "/v1/notify/hook/test")
        assert (told["ok"], told["answer"]) == (True, "answered 200: thanks")
        assert (await made.call("DELETE", "/v1/creds/hook-key"))[0] == 409
        await made.service.notifications.dispatcher.submit(note())
        await until(lambda: len(server.requests) == 2, "delivered")
        status, told = await made.call("GET", "/v1/notify")
        assert SECRET not in json.dumps(told)
        assert (await made.call("DELETE", "/v1/notify/hook"))[0] == 200
        assert (await made.call("DELETE", "/v1/notify/hook"))[0] == 404
        entries = (await made.call("GET", "/v1/audit"))[1]
        assert SECRET not in json.dumps(entries)
        actions = [entry["action"] for entry in entries["audit"]]
        assert {"notify.add", "notify.test", "notify.remove"} <= set(actions)


async def test_what_uses_a_credential_is_named_as_in_valkyrie_yaml_however_it_was_added(
    tmp_path: Path,
) -> None:
    given = {
        "adapters": {"mail": {"kind": "sendgrid", "credential": "key", "from": "a@b.cd", "to": "e@f.gh"}}
    }
    async with notifying(tmp_path, notify=given) as made:
        bus = {"kind": "mqtt", "host": "localhost", "encryption": "none", "command_credential": "key"}
        assert (await made.call("PUT", "/v1/notify/bus", {"settings": bus}))[0] == 200
        await made.call("PUT", "/v1/creds/key", {"value": SECRET})
        (row,) = (await made.call("GET", "/v1/creds"))[1]["credentials"]
        users = ["notify.adapters.mail.credential", "notify.adapters.bus.command_credential"]
        assert row["used_by"] == users
        status, told = await made.call("DELETE", "/v1/creds/key")
        assert (status, told["error"]["what"]) == (
            409,
            f"the settings use credential key: {', '.join(users)}",
        )


async def test_commands_go_through_the_operations_and_are_audited_by_the_adapters_name(
    tmp_path: Path,
) -> None:
    async with notifying(tmp_path) as made:
        operations = made.service.notifications.dispatcher.operations
        await operations["limits-set"]("bus", {"name": "web", **WEB})
        await operations["ban"]("bus", {"prefix": "203.0.113.0/24", "for": "10m", "note": "x"})
        assert made.service.core.world.limits["web"].rate == "1000/s"
        assert made.service.core.world.desired.bans[0].prefix == "203.0.113.0/24"
        for word, wrong in (
            ("ban", {"prefix": "nonsense"}),
            ("ban", {"more": 1}),
            ("limits-set", {"name": "x"}),
        ):
            with pytest.raises(InvalidInput):
                await operations[word]("bus", wrong)
        entries = (await made.call("GET", "/v1/audit"))[1]["audit"]
        assert {entry["user"] for entry in entries} == {"mqtt:bus"}


async def test_a_reload_puts_other_adapters_in_force(tmp_path: Path) -> None:
    async with fake_http(answer(200)) as server, notifying(tmp_path) as made:
        adapters = {"hook": {"kind": "webhook", "url": server.url}}
        changed = Settings(state_dir=tmp_path, socket=tmp_path / "s", notify={"adapters": adapters})
        await made.service.reload(changed)
        await made.service.notifications.dispatcher.submit(note())
        await until(lambda: len(server.requests) == 1, "delivered")


async def test_the_status_of_the_appliance_says_how_notifications_do(tmp_path: Path) -> None:
    async with fake_http(answer(400, "no\x1b such thing")) as server, notifying(tmp_path) as made:
        await made.call("PUT", "/v1/notify/hook", {"settings": {"kind": "webhook", "url": server.url}})
        told = (await made.call("GET", "/v1/status"))[1]["notifications"]
        assert (told["adapters"][0]["state"], told["failing"], told["unheard"]) == ("starting", 0, 0)
        dispatcher = made.service.notifications.dispatcher
        await dispatcher.submit(note())
        await dispatcher.submit(note(severity=Severity.INFO))
        await until(lambda: dispatcher.brief()["dead"] == 1, "refused")
        told = (await made.call("GET", "/v1/status"))[1]["notifications"]
        (hook,) = told.pop("adapters")
        assert told == {
            "failing": 1, "queued": 0, "dropped": 0, "dead": 1, "unheard": 1, "problems": [],
        }  # fmt: skip
        assert hook.pop("last_error").startswith("answered 400: no")
        assert hook == {
            "name": "hook", "kind": "webhook", "state": "failing", "queued": 0, "dropped": 0, "dead": 1,
        }  # fmt: skip


async def test_a_node_keeps_its_own_name_when_it_takes_another_over(tmp_path: Path) -> None:
    """Also if that was before the start: topics and commands are this machine's."""
    settings = Settings(state_dir=tmp_path, socket=tmp_path / "s", store={"name": "edge-2"})
    async with served(settings) as made:
        core = made.service.core
        core.take_role(Actor(0, "root", 1), Role("successor", "edge-1"), "standby.take-over", {})
        assert core.settings.store.name == "edge-1"
        assert made.service.notifications.status()["node"] == "edge-2"
    async with notifying(tmp_path, store={"name": "edge-2"}) as made:
        assert made.service.core.settings.store.name == "edge-1"
        assert (await made.call("GET", "/v1/notify"))[1]["node"] == "edge-2"
        assert made.service.telemetry._instance() == "edge-2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("notify:\n  adapters:\n    ops: {kind: fax}\n", ["line 3", "no kind of adapter"]),
        (f"notify:\n  adapters:\n    ops: {{kind: slack, token: {SECRET}}}\n", ["line 3", "creds set"]),
        ("notify:\n  routes:\n    - {to: ops}\n", ["line 2", "leads to ops"]),
        ("notify:\n  adapters:\n    A B: {kind: console}\n", ["notify.adapters", "no name"]),
        ("notify:\n  queue_messages: 0\n", ["line 2", "notify.queue_messages"]),
    ],
)
def test_mistakes_in_the_settings_are_named_and_not_quoted(text: str, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(text.encode(), "valkyrie.yaml")
    told = f"{caught.value} {caught.value.where}"
    assert all(word in told for word in words), told
    assert SECRET not in told


ADAPTER: dict[str, Any] = {
    "name": "ops", "kind": "slack", "from": "cli", "settings": {"credential": "it"}, "state": "failing",
    "routes": [{"severity": "warning", "tags": {"limit": "web"}}], "queued": 3, "dropped": 2, "dead": 1,
    "forgotten": 4, "delivered": 7, "failures": 9, "last_ok": None, "last_error": "answered 500\x1b[2J",
    "last_error_at": 1.0,
    "more": {
        "connected": False, "problem": "no such host",
        "commands": {"done": 1, "refused": 2, "last_refusal": "old"},
    },
}  # fmt: skip
DEAD = {
    "adapter": "ops", "title": "Drops", "severity": "error", "state": "firing", "queued": 1.0, "died": 2.0,
    "why": "answered 401",
}  # fmt: skip
STATUS: dict[str, Any] = {
    "node": "edge-1", "adapters": [ADAPTER], "dead": [DEAD], "unrouted": 5, "lost_before_start": 0,
    "queue": {"problem": "the disk is full", "durable": False}, "problem": "",
    "kinds": {"slack": ["timeout_seconds", "credential", "channel"]},
}  # fmt: skip
TESTED = {"name": "ops", "ok": False, "answer": "answered 429: later", "hint": "wait", "permanent": False,
          "retry_after": 9.0, "took_ms": 12.3}  # fmt: skip


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        made.api.answers["/v1/notify"] = STATUS
        yield made


def test_list_and_status_tell_what_is_there_and_what_is_wrong(ctl: Ctl) -> None:
    listed = ctl.good("notify", "list")
    assert "ops   slack  cli   warning+, limit=web  failing" in listed
    told = ctl.good("notify", "status")
    assert "\x1b" not in told
    for words in (
        "in memory alone",
        "answered 500",
        "the disk is full",
        "answered 401",
        "2 refused",
        "no such host",
    ):
        assert words in told, told
    row = next(line.split() for line in told.splitlines() if line.startswith("ops "))
    assert row[:7] == ["ops", "failing", "7", "3", "9", "2", "5"]
    assert ctl.json("notify", "status") == STATUS


def test_add_sends_settings_in_sections_and_lists(ctl: Ctl) -> None:
    ctl.api.answers["/v1/notify/post"] = ADAPTER
    given = ("host=h", "to=a@x", "to=b@x", "tls.ca=/ca.pem", "--severity", "error", "--tag", "limit=*")
    assert "notify test post" in ctl.good("notify", "add", "post", "smtp", *given)
    assert ctl.sent().body == {
        "settings": {"kind": "smtp", "host": "h", "to": ["a@x", "b@x"], "tls": {"ca": "/ca.pem"}},
        "severity": "error",
        "tags": {"limit": "*"},
    }


@pytest.mark.parametrize("wrong", [SECRET, f"={SECRET}"])
def test_a_setting_without_a_name_is_refused_and_not_shown(ctl: Ctl, wrong: str) -> None:
    result = ctl("notify", "add", "ops", "slack", wrong)
    assert result.exit_code == 2
    assert SECRET not in result.output


def test_test_shows_what_the_service_answered_and_fails_with_it(ctl: Ctl) -> None:
    ctl.api.answers["/v1/notify/ops/test"] = TESTED
    result = ctl("notify", "test", "ops")
    assert result.exit_code == 11
    assert "ops: answered 429: later (12 ms); a message would be tried again after 9 s" in result.output
    ctl.api.answers["/v1/notify/ops/test"] = {**TESTED, "ok": True, "answer": "answered 200: ok"}
    assert "answered 200: ok" in ctl.good("notify", "test", "ops")


def test_retry_and_remove_say_what_they_did(ctl: Ctl) -> None:
    ctl.api.answers["/v1/notify/ops/retry"] = {"name": "ops", "queued": 3, "revived": 1}
    assert "3 wait, of which 1 were given up" in ctl.good("notify", "retry", "ops")
    ctl.api.answers["/v1/notify/ops"] = {"removed": "ops", "dropped": 3}
    assert "3 messages that waited are gone" in ctl.good("notify", "remove", "ops")


def test_tab_offers_adapters_kinds_and_settings(ctl: Ctl) -> None:
    def completed(line: str) -> list[str]:
        words = line.split()
        at = len(words) if line.endswith(" ") else len(words) - 1
        env = {"_VALKYRIE_CTL_COMPLETE": "zsh_complete", "COMP_WORDS": line, "COMP_CWORD": str(at)}
        return ctl(env=env).stdout.splitlines()[1::3]

    assert completed("valkyrie-ctl notify test o") == ["ops"]
    assert completed("valkyrie-ctl notify add x sl") == ["slack"]
    assert completed("valkyrie-ctl notify add x slack c") == ["channel=", "credential="]


def test_the_daemon_loads_no_library_of_an_adapter_before_there_is_one(tmp_path: Path) -> None:
    code = (
        "import sys; import valkyrie.control.daemon, valkyrie.control.notify.dispatcher; print(*sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), check=True, capture_output=True, text=True
    )
    loaded = set(told.stdout.split())
    assert loaded.isdisjoint({"httpx", "aiomqtt", "aiosmtplib", "stamina", "valkyrie.adapters.notify.kinds"})
