# SPDX-License-Identifier: Apache-2.0
"""Notifications over a real mosquitto: TLS, passwords, certificates, restarts, retained state, last will."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from support.broker import Broker, broker
from support.certs import Certs, make_certs
from support.ctl import ROOT
from support.notes import SECRET, note, sender, until
from valkyrie.adapters.notify.message import NotifyError
from valkyrie.adapters.notify.mqtt import Notifier
from valkyrie.control.errors import NotFound
from valkyrie.control.notify.commands import Commander, Judge, envelope

KEY = b"0123456789abcdef-command"
ALERTS, STATE, STATUS = (
    "valkyrie/edge-1/alerts",
    "valkyrie/edge-1/state/drops%2Fweb",
    "valkyrie/edge-1/status",
)


@contextlib.asynccontextmanager
async def notifier(
    port: int, secrets: dict[str, str] | None = None, /, **fields: Any
) -> AsyncIterator[Notifier]:
    one = sender(
        "mqtt",
        secrets,
        **{"host": "localhost", "port": port, "encryption": "none", "timeout_seconds": 5.0, **fields},
    )
    assert isinstance(one, Notifier)
    await one.start()
    try:
        yield one
    finally:
        await one.close()


class Ear:
    """A subscriber that keeps all it hears."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.heard: list[aiomqtt.Message] = []

    def on(self, topic: str) -> list[bytes]:
        return [bytes(one.payload) for one in self.heard if one.topic.value == topic]

    async def listen(self) -> None:
        async for one in self.client.messages:
            self.heard.append(one)


@contextlib.asynccontextmanager
async def ear(port: int, **options: Any) -> AsyncIterator[Ear]:
    async with aiomqtt.Client("localhost", port, **options) as client:
        made = Ear(client)
        await client.subscribe("valkyrie/#", qos=1)
        task = asyncio.ensure_future(made.listen())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_message_goes_to_alerts_and_the_last_state_is_retained() -> None:
    with broker() as server:
        async with ear(server.port) as listening, notifier(server.port) as one:
            await one.send(note())
            await until(lambda: len(listening.on(STATE)) == 1, "both")
            alert = json.loads(listening.on(ALERTS)[0])
            assert (alert["state"], alert["severity"], alert["tags"]) == (
                "firing",
                "warning",
                {"limit": "web"},
            )
            assert listening.on(STATUS) == [b"online"]
            await one.send(note(state="note", key="hello"))
        async with ear(server.port) as late:
            await until(lambda: len(late.heard) == 2, "what is retained")
            assert json.loads(late.on(STATE)[0])["state"] == "firing"
            assert late.on(ALERTS) == []
        async with notifier(server.port) as one:
            await one.send(note(state="resolved"))
        async with ear(server.port) as late:
            await until(lambda: bool(late.on(STATE)), "what is retained")
            assert json.loads(late.on(STATE)[0])["state"] == "resolved"


async def test_a_rule_has_one_state_however_often_it_fires_and_a_late_message_does_not_hide_a_newer() -> None:
    async with connected_ear() as (one, listening):
        for began in range(3):
            for later, state in enumerate(("firing", "resolved")):
                at = 1_700_000_000.0 + 10 * began + later
                await one.send(note(state=state, key=f"drops/{began}", at=at, rule="drops"))
        await one.send(note(state="firing", key="drops/3", at=1_700_000_100.0, rule="drops"))
        await one.send(note(state="resolved", key="drops/2", at=1_700_000_021.0, rule="drops"))
        await until(lambda: len(listening.on(ALERTS)) == 8, "all of them")
        shown = listening.on("valkyrie/edge-1/state/drops")
        assert [json.loads(body)["state"] for body in shown] == ["firing", "resolved"] * 3 + ["firing"]
        assert {one.topic.value for one in listening.heard} == {ALERTS, STATUS, "valkyrie/edge-1/state/drops"}


async def test_after_a_clock_was_set_back_states_are_shown_all_the_same() -> None:
    async with connected_ear() as (one, listening):
        for at in (time.time() + 3600, 1_700_000_000.0):
            await one.send(note(at=at, rule="drops"))
        await until(lambda: len(listening.on("valkyrie/edge-1/state/drops")) == 2, "both")


@contextlib.asynccontextmanager
async def connected_ear() -> AsyncIterator[tuple[Notifier, Ear]]:
    with broker() as server:
        async with ear(server.port) as listening, notifier(server.port) as one:
            yield one, listening


async def test_who_leaves_in_order_says_offline_by_itself() -> None:
    with broker() as server:
        async with ear(server.port) as listening:
            async with notifier(server.port) as one:
                await one.send(note())
            await until(lambda: listening.on(STATUS) == [b"online", b"offline"], "goodbye")


def killed_notifier(port: int) -> subprocess.Popen[bytes]:
    code = (
        "import asyncio, sys\n"
        "from support.notes import sender, note\n"
        "async def main():\n"
        f"    one = sender('mqtt', host='localhost', port={port}, encryption='none')\n"
        "    await one.start(); await one.send(note()); print('sent', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    path = os.pathsep.join([str(ROOT / ".src"), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    )


async def test_the_last_will_says_offline_when_the_process_is_killed() -> None:
    with broker() as server:
        async with ear(server.port) as listening:
            process = killed_notifier(server.port)
            try:
                assert process.stdout is not None
                assert await asyncio.to_thread(process.stdout.readline) == b"sent\n"
                process.send_signal(signal.SIGKILL)
                await until(lambda: listening.on(STATUS) == [b"online", b"offline"], "the last will")
            finally:
                process.kill()
                await asyncio.to_thread(process.communicate)
        async with ear(server.port) as late:
            await until(lambda: late.on(STATUS) == [b"offline"], "which is retained")


async def test_a_message_sent_while_the_broker_restarts_is_delivered_after_it() -> None:
    with broker() as server:
        async with notifier(server.port, timeout_seconds=20) as one:
            await one.send(note(title="before"))
            server.stop()
            sending = asyncio.ensure_future(one.send(note(title="amid")))
            await until(lambda: not one.status()["connected"], "that it is lost is seen")
            assert not sending.done() or sending.exception() is not None
            server.start()
            async with ear(server.port) as listening:
                with contextlib.suppress(NotifyError):
                    await sending
                await until(lambda: one.status()["connected"], "connected again")
                await one.send(note(title="after"))
                await until(lambda: bool(listening.on(STATE)), "the state")
                assert json.loads(listening.on(STATE)[-1])["title"] == "after"
            assert one.status()["connections"] == 2


async def test_a_broker_that_is_away_is_an_error_that_is_tried_again() -> None:
    with broker() as server:
        server.stop()
        async with notifier(server.port, timeout_seconds=0.5) as one:
            with pytest.raises(NotifyError) as caught:
                await one.send(note())
            assert not caught.value.permanent
            assert "cannot be reached" in caught.value.what


async def test_a_broker_that_hangs_delays_neither_errors_nor_the_end() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for encryption in ("none", "tls"):
        began = time.monotonic()
        async with notifier(port, encryption=encryption, timeout_seconds=0.4) as one:
            for _ in range(2):
                with pytest.raises(NotifyError, match=r"no answer|has not connected"):
                    await one.send(note())
        assert time.monotonic() - began < 3
    server.close()
    await server.wait_closed()


async def test_a_wrong_password_is_told_and_not_shown() -> None:
    with broker(user=("app", SECRET)) as server:
        fields = {"username": "app", "credential": "it"}
        async with notifier(server.port, **fields) as one:
            await one.send(note())
        async with notifier(server.port, {"it": SECRET + "x"}, **fields, timeout_seconds=1.0) as one:
            with pytest.raises(NotifyError) as caught:
                await one.send(note())
            assert "refused" in caught.value.what
            assert SECRET not in str(caught.value) + repr(one) + repr(vars(one))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return make_certs(Path(tmp_path_factory.mktemp("mqtt")))


async def test_over_tls_the_broker_must_be_the_right_one(pki: Certs, tmp_path: Path) -> None:
    with broker(certs=pki, user=("app", SECRET)) as server:
        fields = {"encryption": "tls", "username": "app", "credential": "it", "timeout_seconds": 3.0}
        async with notifier(server.port, tls={"ca": str(pki.ca)}, **fields) as one:
            await one.send(note())
            assert one.status()["connected"]
        other = make_certs(tmp_path)
        async with notifier(
            server.port, tls={"ca": str(other.ca)}, **{**fields, "timeout_seconds": 1.0}
        ) as one:
            with pytest.raises(NotifyError, match="CERTIFICATE_VERIFY_FAILED"):
                await one.send(note())


async def test_a_client_certificate_opens_the_door_and_its_lack_is_guessed(pki: Certs) -> None:
    shown = {"ca": str(pki.ca), "certificate": str(pki.client), "private_key": str(pki.client_key)}
    with broker(certs=pki, ask_certificate=True) as server:
        async with notifier(server.port, encryption="tls", tls=shown) as one:
            await one.send(note())
        bare = {"encryption": "tls", "tls": {"ca": str(pki.ca)}}
        async with notifier(server.port, **bare, timeout_seconds=0.7) as one:
            await until(lambda: "certificate" in one._problem, "the guess")
            with pytest.raises(NotifyError, match=r"set tls\.certificate"):
                await one.send(note())


async def set_limit(adapter: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.get("name") == "none":
        raise NotFound("there is no limit 'none'", "list them")
    return {"by": adapter, **arguments}


def commander(started: float) -> Commander:
    async def key() -> bytes:
        return KEY

    return Commander("ops", Judge("edge-1", started), key, {"limits-set": set_limit}, time.time)


def body(**changes: Any) -> dict[str, Any]:
    made = {
        "node": "edge-1", "command": "limits-set", "id": "c1", "time": time.time(),
        "nonce": os.urandom(12).hex(), "arguments": {"name": "web", "rate": "10/s"},
    }  # fmt: skip
    return {**made, **changes}


@contextlib.asynccontextmanager
async def commanded(server: Broker) -> AsyncIterator[tuple[Notifier, Commander, Ear]]:
    one = sender("mqtt", host="localhost", port=server.port, encryption="none", command_credential="it")
    assert isinstance(one, Notifier)
    judging = one.commander = commander(time.time() - 5)
    async with ear(server.port) as listening:
        await one.start()
        try:
            await until(lambda: bool(one.status()["connected"]), "connected")
            yield one, judging, listening
        finally:
            await one.close()


async def test_a_signed_command_is_carried_out_once_and_its_result_published() -> None:
    with broker() as server:
        async with commanded(server) as (_, judging, listening):
            payload = envelope(KEY, body())
            for _ in range(3):
                await listening.client.publish("valkyrie/edge-1/cmd/limits-set", payload, qos=1)
            await until(lambda: judging.done + judging.refused == 3, "all three")
            assert (judging.done, judging.refused) == (1, 2)
            results = listening.on("valkyrie/edge-1/result/c1")
            assert [json.loads(one) for one in results] == [
                {"id": "c1", "ok": True, "result": {"by": "ops", "name": "web", "rate": "10/s"}}
            ]
            failing = envelope(KEY, body(id="c2", arguments={"name": "none"}))
            await listening.client.publish("valkyrie/edge-1/cmd/limits-set", failing, qos=1)
            await until(lambda: bool(listening.on("valkyrie/edge-1/result/c2")), "the failure")
            wrong = json.loads(listening.on("valkyrie/edge-1/result/c2")[0])
            assert wrong["error"]["code"] == "not-found"


async def test_unsigned_retained_and_huge_commands_do_nothing() -> None:
    with broker() as server:
        async with ear(server.port) as listening:
            await listening.client.publish(
                "valkyrie/edge-1/cmd/limits-set", envelope(KEY, body()), qos=1, retain=True
            )
        async with commanded(server) as (_, judging, listening):
            topic = "valkyrie/edge-1/cmd/limits-set"
            for payload in (
                b"",
                b"{}",
                b"\xff" * 99,
                b"[" * 15000,
                envelope(b"x" * 16, body()),
                b"x" * 100_000,
            ):
                await listening.client.publish(topic, payload, qos=1)
            await until(lambda: judging.refused == 6, "all refused")
            assert judging.done == 0
            assert not [one for one in listening.heard if "/result/" in one.topic.value]


async def test_commands_are_not_even_subscribed_to_without_a_key() -> None:
    with broker() as server:
        async with ear(server.port) as listening, notifier(server.port) as one:
            await until(lambda: bool(one.status()["connected"]), "connected")
            await listening.client.publish("valkyrie/edge-1/cmd/limits-set", envelope(KEY, body()), qos=1)
            await until(lambda: bool(listening.on("valkyrie/edge-1/cmd/limits-set")), "the round")
            assert not (server.folder / "log").read_text().count("cmd/# (QoS")
            assert not one.status()["commands"]


async def test_a_packet_without_measure_is_not_gathered() -> None:
    size, sent = 200 << 20, [0]

    async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(200)
            writer.write(b"\x20\x02\x00\x00" + b"\x30\x80\x80\x80\x64")  # CONNACK; PUBLISH of 200 MB
            while sent[0] < size:
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent[0] += 1 << 16
        except ConnectionError:
            ended.set()
        finally:
            writer.close()

    ended = asyncio.Event()
    async with (
        await asyncio.start_server(flooding, "127.0.0.1", 0) as server,
        notifier(server.sockets[0].getsockname()[1]),
    ):
        async with asyncio.timeout(10):
            await ended.wait()
        assert sent[0] < size / 4
