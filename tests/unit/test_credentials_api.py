# SPDX-License-Identifier: Apache-2.0
"""Credentials by API and command line: values go in, names come out, rotation is tried before it counts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import select
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from support.ctl import command, environment
from support.served import Served, served
from valkyrie.adapters.errors import AuthenticationFailed, StoreConfigurationError, StoreTimeout
from valkyrie.adapters.secrets import Secret, StaticSecrets
from valkyrie.adapters.settings import RedisSettings, StoreSettings, ValkeySettings
from valkyrie.control.api.openapi import describe
from valkyrie.control.api.peer import Access, Peer
from valkyrie.control.api.table import ROUTES
from valkyrie.control.cli.main import PROGRAM, cli
from valkyrie.control.config import Settings, parse_settings
from valkyrie.control.errors import InvalidInput, PermissionRefused

OLD, NEW = "correct horse battery staple", "a newer battery staple"


@pytest_asyncio.fixture
async def api(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    """Whatever the test does: no value is in the log, the audit or the state."""
    caplog.set_level(logging.DEBUG)
    store = StoreSettings(
        redis=RedisSettings(credential="redis-password"),
        valkey=ValkeySettings(encryption_credential="values-key"),
    )
    settings = Settings(state_dir=tmp_path / "state", socket=tmp_path / "v.sock", store=store)
    async with served(settings) as api:
        yield api
        _, audit = await api.call("GET", "/v1/audit")
    kept = b"".join(file.read_bytes() for file in settings.state_dir.iterdir())
    for value in (OLD, NEW):
        assert value not in caplog.text
        assert value not in json.dumps(audit)
        assert value.encode() not in kept


async def ctl(api: Served, *args: str, stdin: str | bytes = "") -> Result:
    given = {"VALKYRIE_SOCKET": str(api.path), "NO_COLOR": "1"}
    return await asyncio.to_thread(
        CliRunner().invoke, cli, ["creds", *args], input=stdin, env=given, prog_name=PROGRAM
    )


async def test_a_password_goes_in_and_is_used_and_listed_but_never_told(api: Served) -> None:
    assert (await ctl(api, "set", "redis-password", "--stdin", stdin=f"{OLD}\n")).exit_code == 0
    assert (await api.service.credentials.store.secret("redis-password")).reveal() == OLD.encode()
    result = await ctl(api, "list")
    assert result.output.splitlines()[0].split() == ["NAME", "VERSION", "AGE", "USED", "BY"]
    assert result.output.splitlines()[1].split() == ["redis-password", "1", "0s", "store.redis.credential"]
    assert "missing: values-key" in result.output
    for target in ("/v1/creds", "/v1/status", "/v1/audit", "/v1/openapi.json", "/v1/export"):
        assert OLD not in json.dumps(await api.call("GET", target))
    _, audit = await api.call("GET", "/v1/audit")
    newest = audit["audit"][0]
    assert (newest["action"], newest["target"], newest["detail"]) == ("creds.set", "redis-password", {})


async def test_a_value_on_the_command_line_is_refused_unshown_and_nothing_changes(api: Served) -> None:
    for words in (("set", "db", OLD), ("rotate", "db", OLD), ("encrypt", OLD), ("set", OLD)):
        result = await ctl(api, *words)
        assert result.exit_code == 2, result.output
        assert OLD not in result.output
    result = await ctl(api, "set", "db", OLD)
    assert "`ps` shows it" in result.output
    assert "history" in result.output
    assert (await api.call("GET", "/v1/creds"))[1]["credentials"] == []


@pytest.mark.parametrize("given", ["", "\n", "x" * 4097, b"\xff\xfe"])
async def test_a_value_that_is_none_is_refused(api: Served, given: str | bytes) -> None:
    result = await ctl(api, "set", "db", stdin=given)
    assert result.exit_code == 2
    assert "value" in result.output


async def test_the_api_refuses_bad_bodies_without_quoting_them(api: Served) -> None:
    for body in (
        {"value": ""},
        {"value": OLD * 200},
        {"value": [OLD]},
        {"password": OLD},
        {"value": OLD, "x": 1},
    ):
        status, answer = await api.call("PUT", "/v1/creds/db", body)
        assert status == 400
        assert OLD not in json.dumps(answer)
    assert (await api.call("PUT", "/v1/creds/Db", {"value": OLD}))[0] == 400


async def test_a_terminal_is_asked_twice_and_shows_nothing(api: Served) -> None:
    status, shown = await asyncio.to_thread(on_terminal, command("creds", "set", "db"), api.path)
    assert status == 0, shown
    assert OLD not in shown
    assert shown.count(": ") == 3  # two prompts and what was done
    assert (await api.service.credentials.store.secret("db")).reveal() == OLD.encode()


def on_terminal(words: list[str], path: Path) -> tuple[int, str]:
    """A process with a terminal of its own, at which OLD is typed; its exit status and all that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(path), start_new_session=True
    )
    os.close(theirs)
    try:
        shown = answer_prompts(ours, OLD)
        return process.wait(20), shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def answer_prompts(terminal: int, value: str) -> str:
    """Everything shown on the terminal; each prompt is answered when it is there."""
    shown, answered = "", 0
    while True:
        assert select.select([terminal], [], [], 20)[0], shown
        try:
            part = os.read(terminal, 1000).decode()
        except OSError:  # the other side is closed
            return shown
        if not part:
            return shown
        shown += part
        if answered < 2 and shown.count(": ") > answered:
            answered += 1
            os.write(terminal, f"{value}\n".encode())


class Watching:
    """A store that holds connections: what it was offered, and how it answers."""

    def __init__(self, *answers: Exception | None) -> None:
        self.offered: list[Secret] = []
        self.answers = list(answers)

    async def __call__(self, secret: Secret) -> None:
        self.offered.append(secret)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    def values(self) -> list[str]:
        return [secret.reveal().decode() for secret in self.offered]


async def test_a_rotation_counts_once_all_stores_took_it(api: Served) -> None:
    store = api.service.credentials.store
    await ctl(api, "set", "db", stdin=OLD)
    one, two, other = Watching(), Watching(), Watching()
    store.watch("db", one)
    store.watch("other", other)
    end = store.watch("db", two)
    result = await ctl(api, "rotate", "db", stdin=NEW)
    assert "version 2 is in force, taken by 2 users" in result.output
    assert one.values() == two.values() == [NEW]
    assert one.offered[0].previous == (Secret(OLD.encode(), 1),)
    assert await store.secret("db") == one.offered[0]
    assert other.offered == []
    end()
    end()
    await ctl(api, "rotate", "db", stdin=OLD)
    assert one.values() == [NEW, OLD]
    assert two.values() == [NEW]


async def test_a_rotation_that_one_server_refuses_is_taken_back_everywhere(api: Served) -> None:
    store = api.service.credentials.store
    await ctl(api, "set", "db", stdin=OLD)
    willing, refusing = Watching(), Watching(AuthenticationFailed("redis refuses the user's password"))
    store.watch("db", willing)
    store.watch("db", refusing)
    result = await ctl(api, "rotate", "db", stdin=NEW)
    assert result.exit_code == 4
    assert "redis refuses the user's password" in result.output
    assert "version 1 of credential db stays in force" in result.output
    assert willing.values() == refusing.values() == [NEW, OLD]
    assert (await store.secret("db")).reveal() == OLD.encode()
    assert (await api.call("GET", "/v1/creds"))[1]["credentials"][0]["version"] == 1


async def test_a_rotation_that_cannot_be_tried_is_put_off_and_set_replaces_untried(api: Served) -> None:
    store = api.service.credentials.store
    await ctl(api, "set", "db", stdin=OLD)
    away = StoreTimeout("redis does not answer")
    store.watch("db", Watching(away, away, away, RuntimeError(NEW)))
    result = await ctl(api, "rotate", "db", stdin=NEW)
    assert result.exit_code == 6
    assert "could not be tried" in result.output
    result = await ctl(api, "set", "db", stdin=NEW)
    assert result.exit_code == 0
    assert "not taken: redis does not answer" in result.output
    assert (await store.secret("db")).reveal() == NEW.encode()
    result = await ctl(api, "set", "db", stdin=NEW)
    assert "not taken: a bug: RuntimeError" in result.output
    assert NEW not in result.output


async def test_a_store_that_hangs_does_not_hold_up_a_rotation_for_ever(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valkyrie.control.credentials.store.OFFER_S", 0.05)
    await ctl(api, "set", "db", stdin=OLD)

    async def hang(secret: Secret) -> None:
        await asyncio.Event().wait()

    api.service.credentials.store.watch("db", hang)
    result = await ctl(api, "rotate", "db", stdin=NEW)
    assert result.exit_code == 6
    assert "no answer in time" in result.output


async def test_what_cannot_be_written_is_taken_back(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    store = api.service.credentials.store
    await ctl(api, "set", "db", stdin=OLD)
    one = Watching()
    store.watch("db", one)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("valkyrie.control.credentials.files.os.fsync", full)
        result = await ctl(api, "rotate", "db", stdin=NEW)
    assert result.exit_code == 9
    assert one.values() == [NEW, OLD]
    assert (await store.secret("db")).reveal() == OLD.encode()


async def test_rotating_what_is_not_there_says_how_to_make_it(api: Served) -> None:
    result = await ctl(api, "rotate", "db", stdin=NEW)
    assert result.exit_code == 3
    assert "creds set db" in result.output


async def test_what_the_settings_use_is_deleted_by_force_only(api: Served) -> None:
    for name in ("redis-password", "spare"):
        await ctl(api, "set", name, stdin=OLD)
    result = await ctl(api, "delete", "redis-password")
    assert result.exit_code == 4
    assert "store.redis.credential" in result.output
    assert (await ctl(api, "delete", "spare")).exit_code == 0
    assert (await ctl(api, "delete", "spare")).exit_code == 3
    assert (await ctl(api, "delete", "redis-password", "--force")).exit_code == 0
    with pytest.raises(StoreConfigurationError, match="no credential redis-password"):
        await api.service.credentials.store.secret("redis-password")


async def test_encrypted_text_is_for_the_settings_and_opens_after_a_rekey(
    api: Served, tmp_path: Path
) -> None:
    result = await ctl(api, "encrypt", "-o", "json", stdin=OLD)
    text = json.loads(result.output)["password_encrypted"]
    credentials = api.service.credentials
    assert credentials.store.open_encrypted(text).reveal() == OLD.encode()
    await ctl(api, "set", "db", stdin=OLD)
    redis = RedisSettings(password_encrypted=text)
    settings = api.service.core.settings.model_copy(update={"store": StoreSettings(redis=redis)})
    await api.service.reload(settings)
    result = await ctl(api, "rekey")
    assert result.exit_code == 0, result.output
    assert "store.redis.password_encrypted still needs the old key" in result.output
    assert credentials.store.open_encrypted(text).reveal() == OLD.encode()
    assert (await credentials.store.secret("db")).reveal() == OLD.encode()
    with pytest.raises(StoreConfigurationError):
        credentials.store.open_encrypted("hunter2")


async def test_a_damaged_file_stops_neither_the_start_nor_hides_itself(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", socket=tmp_path / "v.sock")
    settings.state_dir.mkdir()
    (settings.state_dir / "credentials.json").write_text("{")
    async with served(settings) as api:
        result = await ctl(api, "list")
        assert result.exit_code == 9
        assert "is damaged" in result.output
        with pytest.raises(StoreConfigurationError, match="is damaged"):
            await api.service.credentials.store.secret("db")


def test_who_may_only_read_may_list_and_nothing_else() -> None:
    access, reader = Access(7, 8), Peer(1, 54321, frozenset({8}))
    routes = [route for route in ROUTES if "/creds" in route.path]
    assert len(routes) == 6
    for route in routes:
        if route.method == "GET":
            assert access.check(reader, write=route.writes) is reader
        else:
            with pytest.raises(PermissionRefused):
                access.check(reader, write=route.writes)


def test_the_description_says_that_values_are_secret_and_shows_none() -> None:
    value: Any = describe(ROUTES, "1")["components"]["schemas"]["CredentialBody"]["properties"]["value"]
    assert value["writeOnly"]
    assert value["format"] == "password"
    assert not {"default", "example", "examples"} & value.keys()


async def test_an_application_that_brings_its_own_secrets_can_rotate_them() -> None:
    secrets = StaticSecrets({"db": OLD})
    taking = Watching()
    end = secrets.watch("db", taking)
    await secrets.replace("db", NEW)
    assert taking.values() == [NEW]
    assert (await secrets.secret("db")).previous[0].reveal() == OLD.encode()
    taking.answers = [AuthenticationFailed("no")]
    with pytest.raises(AuthenticationFailed):
        await secrets.replace("db", "third")
    assert taking.values() == [NEW, "third", NEW]
    end()
    await secrets.replace("db", OLD)
    assert (await secrets.secret("db")).version == 3
    assert OLD not in repr(secrets)
    for wrong in ("other",):
        with pytest.raises(StoreConfigurationError):
            await secrets.secret(wrong)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("store:\n  valkey:\n    password: {}\n", 3),
        ("store:\n  redis:\n    url: redis://user:{}@localhost\n", 3),
        ("store:\n  redis:\n    url: redis://:{}@localhost\n", 3),
        ("store:\n  redis:\n    url: redis://localhost/?Password={}\n", 3),
        ("store:\n  redis:\n    url: 'redis://user:{}@localhost:port'\n", 3),
        ("store:\n  redis:\n    url: 'redis://user:{}@localhost\N{ADDRESSED TO THE SUBJECT}'\n", 3),
        ("store:\n  redis:\n    password_encrypted: {}\n", 3),
        ("store:\n  redis:\n    sentinel:\n      master: m\n      nodes:\n      - u:{}@h:1\n", 6),
        ("api_token: {}\n", 1),
    ],
)
def test_a_password_in_the_settings_is_refused_unshown_with_line_and_what_to_do(text: str, line: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(text.format("hunter2").encode(), "valkyrie.yaml")
    told = f"{caught.value} {caught.value.where}"
    assert "hunter2" not in told
    assert f"line {line}," in told
    assert "valkyrie-ctl creds" in told or "credential: NAME" in told or "is not a URL" in told
