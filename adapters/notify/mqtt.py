# SPDX-License-Identifier: Apache-2.0
"""Messages to an MQTT broker over one connection that is made again whenever it is lost.

The session is a clean one: what waits for the broker waits in this node's own queue, which outlives a
restart; and commands that were sent while this node was away must not be carried out late.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiomqtt

from valkyrie.adapters.notify.kinds import MqttSettings
from valkyrie.adapters.notify.lookup import Lookup
from valkyrie.adapters.notify.message import Message, NotifyError
from valkyrie.adapters.notify.mqtt_packets import bound_packets
from valkyrie.adapters.notify.mqtt_socket import connected
from valkyrie.adapters.notify.sender import Sender, Tls
from valkyrie.adapters.notify.text import as_json, told
from valkyrie.adapters.secrets import Secrets

log = logging.getLogger(__name__)

PORTS = {"tls": 8883, "none": 1883}
WAIT_FIRST_S = 0.5
WAIT_MOST_S = 30.0
GOODBYE_S = 1.0
COMMANDS_WAITING = 64
MAX_COMMAND = 16 * 1024
AT_LEAST_ONCE = 1

Commander = Callable[[str, bytes], Awaitable[tuple[str, bytes] | None]]
"""Carries out what came on `cmd/WORD`: the id and body of a result, None when nothing is to be told."""


def topic_word(key: str) -> str:
    """A key as one level of a topic."""
    return quote(key, safe="")[:200] or "-"


class Notifier(Sender[MqttSettings]):
    """Use `start` first. `commander` is set before that, when commands are to be taken."""

    def __init__(self, name: str, settings: MqttSettings, secrets: Secrets, node: str) -> None:
        super().__init__(name, settings, secrets, node)
        self.commander: Commander | None = None
        self._tls = Tls(settings.tls)
        self._lookup = Lookup()
        self._base = f"{settings.prefix}/{topic_word(node)}"
        self._client: aiomqtt.Client | None = None
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._problem = "has not connected yet"
        self._connections = 0
        self._shown: dict[str, float] = {}  # timestamps by rule
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    def status(self) -> dict[str, Any]:
        return {
            "connected": self._ready.is_set(),
            "problem": self._problem,
            "connections": self._connections,
            "commands": self.commander is not None,
        }

    async def deliver(self, message: Message) -> str:
        body = json.dumps(as_json(message, self.node), separators=(",", ":")).encode()
        await self.publish("alerts", body, retain=False)
        if message.state != "note":
            await self._show(message, body)
        return "acknowledged by the broker (QoS 1)"

    async def _show(self, message: Message, body: bytes) -> None:
        """How its rule stands: one topic for all alerts that the rule ever makes, for a broker keeps each."""
        name = message.tags.get("rule", message.key)
        # One that was held back must not hide a newer one, unless that is of the future: a clock was set.
        if message.timestamp < self._shown.get(name, -math.inf) <= time.time():
            return
        await self.publish(f"state/{topic_word(name)}", body, retain=True)
        self._shown[name] = message.timestamp

    async def publish(self, tail: str, body: bytes, *, retain: bool) -> None:
        """Until the broker acknowledged it. Raises NotifyError."""
        limit = self.settings.timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await self._ready.wait()
                client, lost = self._client, self._lost
                assert client is not None
                await _unless(
                    lost,
                    client.publish(
                        f"{self._base}/{tail}", body, qos=AT_LEAST_ONCE, retain=retain, timeout=math.inf
                    ),
                )
        except TimeoutError:
            why = self._problem or "connected, but it acknowledges nothing"
            raise NotifyError(f"not acknowledged within {limit:g} s: {why}") from None
        except (aiomqtt.MqttError, ValueError) as error:
            raise NotifyError(f"the connection broke: {told(str(error))}") from None

    async def close(self) -> None:
        """Say goodbye, so that the last will is not needed, then hang up."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_connected(self) -> None:
        wait = WAIT_FIRST_S
        while True:
            began = time.monotonic()
            try:
                await self._one_connection()
            except NotifyError as error:
                self._problem = str(error)
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                self._problem = self._told(error)
            except Exception:  # the library raises what it likes out of its callbacks
                log.exception("the MQTT connection %s failed", self.name)
                self._problem = "a bug; the log has it"
            if time.monotonic() - began > WAIT_MOST_S:
                wait = WAIT_FIRST_S
            await asyncio.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - so that nodes do not come at once
            wait = min(2 * wait, WAIT_MOST_S)

    async def _one_connection(self) -> None:
        """From connecting until the connection is lost."""
        own = self.settings
        password = (
            None if own.credential is None else (await self.secret(own.credential)).decode(errors="replace")
        )
        sock = await self._socket()
        client = self._made(sock, password)
        entered = False
        try:
            async with client:
                entered = True
                await client.publish(f"{self._base}/status", b"online", qos=AT_LEAST_ONCE, retain=True)
                if self.commander is not None:
                    await client.subscribe(f"{self._base}/cmd/#", qos=AT_LEAST_ONCE)
                self._client, self._lost, self._problem = client, asyncio.Event(), ""
                self._connections += 1
                self._ready.set()
                try:
                    await self._heard(client)
                finally:
                    self._ready.clear()
                    self._lost.set()
                    await self._goodbye(client)
        finally:
            if not entered:
                _abandon(client)
            sock.close()

    async def _socket(self) -> socket.socket:
        own = self.settings
        secured = own.encryption == "tls"
        context = await asyncio.to_thread(self._tls.context) if secured else None
        async with asyncio.timeout(own.timeout_seconds):
            return await connected(own.host, own.port or PORTS[own.encryption], context, self._lookup)

    def _made(self, sock: socket.socket, password: str | None) -> aiomqtt.Client:
        own = self.settings
        client = aiomqtt.Client(
            own.host,
            own.port or PORTS[own.encryption],
            username=own.username,
            password=password,
            identifier=own.client_id or f"valkyrie-{topic_word(self.node)}-{self.name}",
            clean_session=True,
            timeout=own.timeout_seconds,
            keepalive=own.keepalive_seconds,
            max_queued_incoming_messages=COMMANDS_WAITING,
            will=aiomqtt.Will(f"{self._base}/status", b"offline", AT_LEAST_ONCE, retain=True),
        )
        client._client._create_socket = lambda: sock  # type: ignore[method-assign] # noqa: SLF001 - see mqtt_socket
        bound_packets(client._client)  # noqa: SLF001 - as above
        return client

    async def _heard(self, client: aiomqtt.Client) -> None:
        """Take commands until the connection is lost; raises MqttError then."""
        async for message in client.messages:
            payload = message.payload
            # What is retained is old, whatever it says.
            if self.commander is None or message.retain or not isinstance(payload, bytes):
                continue
            word = message.topic.value.removeprefix(f"{self._base}/cmd/")
            answer = await self.commander(word, payload[: MAX_COMMAND + 1])
            if answer is not None:
                tail = f"result/{topic_word(answer[0])}"
                await client.publish(f"{self._base}/{tail}", answer[1], qos=AT_LEAST_ONCE)

    async def _goodbye(self, client: aiomqtt.Client) -> None:
        if client._disconnected.done():  # noqa: SLF001 - nothing public says so
            return
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(GOODBYE_S):
                topic = f"{self._base}/status"
                await client.publish(topic, b"offline", qos=AT_LEAST_ONCE, retain=True, timeout=GOODBYE_S)

    def _told(self, error: Exception) -> str:
        """Under TLS 1.3 a client learns only by silence or a hang-up that its certificate was wanted."""
        hint = self._tls.hint if self.settings.encryption == "tls" else ""
        if isinstance(error, TimeoutError) or "timed out" in str(error):
            return f"no answer within {self.settings.timeout_seconds:g} s" + (f"; {hint}" if hint else "")
        what = told(str(error)) or type(error).__name__
        if isinstance(error, aiomqtt.MqttCodeError) and not self._ready.is_set():
            return f"refused: {what}; are user name and credential right?"
        return f"cannot be reached: {what}"


async def _unless(lost: asyncio.Event, work: Awaitable[None]) -> None:
    """The work's outcome, or MqttError once the connection is lost: its acknowledgement cannot come then."""
    doing = asyncio.ensure_future(work)
    losing = asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait((doing, losing), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise aiomqtt.MqttError("lost before the broker acknowledged")
        doing.result()
    finally:
        for task in (doing, losing):
            task.cancel()
        await asyncio.gather(doing, losing, return_exceptions=True)


def _abandon(client: aiomqtt.Client) -> None:
    """After a greeting that was not answered the library goes on watching the socket."""
    with contextlib.suppress(Exception):
        client._client._sock_close()  # noqa: SLF001 - there is no public way
