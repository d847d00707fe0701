# SPDX-License-Identifier: Apache-2.0
"""Who is told of alerts, inside a namespace: a web service that checks signatures, and a subscriber."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from valkyrie.control.lab.netns import Namespace

HOST = "127.0.0.1"


@dataclass
class Hook:
    """Takes what is signed with `key`, while `status` is 200; `taken` is (delivery id, body)."""

    key: bytes
    status: int = 200
    port: int = 0
    taken: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refused: int = 0
    forged: int = 0

    def judge(self, headers: dict[str, str], body: bytes) -> int:
        signed = headers["x-valkyrie-timestamp"].encode() + b"." + body
        wanted = "sha256=" + hmac.new(self.key, signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, headers["x-valkyrie-signature"]):
            self.forged += 1
            return 401
        if self.status != 200:
            self.refused += 1
            return self.status
        self.taken.append((headers["x-valkyrie-delivery"], json.loads(body)))
        return 200


@contextmanager
def hooked(namespace: Namespace, key: bytes) -> Iterator[Hook]:
    hook = Hook(key)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(hook.judge({name.lower(): one for name, one in self.headers.items()}, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = namespace.call(ThreadingHTTPServer, (HOST, 0), Handler)
    hook.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Subscriber:
    """What was published since it subscribed, as (topic, payload)."""

    heard: list[tuple[str, bytes]] = field(default_factory=list)

    def on(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for at, payload in list(self.heard) if at == topic]


@contextmanager
def subscribed(namespace: Namespace, port: int, topics: str) -> Iterator[Subscriber]:
    made, ready = Subscriber(), threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, one: made.heard.append((one.topic, bytes(one.payload)))
    namespace.call(client.connect, HOST, port)
    client.subscribe(topics, qos=1)
    client.loop_start()
    try:
        assert ready.wait(10), "the broker took no subscription"
        yield made
    finally:
        client.disconnect()
        client.loop_stop()
