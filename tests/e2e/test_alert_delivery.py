# SPDX-License-Identifier: Apache-2.0
"""From the flood to the people: the real daemon tells a webhook and a broker, also across kills."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from support.appliance import Appliance
from support.broker import broker
from support.receivers import HOST, Hook, Subscriber, hooked, subscribed
from valkyrie.control.lab.generator import Generator, Sources

NODE = "edge-1"
ALERTS = f"valkyrie/{NODE}/alerts"
KEY = "a key that is known to both ends"
PORTS = {"web": 7, "dns": 11}
RATE, SOURCES = 500, 8  # frames a second to each port
DEADLINE_S = 60
QUIET_S = 4.0  # group_wait and two looks: what must not come has no event
RULE = {
    "name": "drops",
    "when": "drop-rate",
    "above": "50/s",
    "for": "1s",
    "clear_after": "2s",
    "severity": "error",
}


@dataclass(frozen=True)
class Told:
    """The appliance and those whom it tells."""

    appliance: Appliance
    hook: Hook
    bus: Subscriber
    generator: Generator

    def heard(self) -> list[str]:
        """States of the messages on the broker."""
        return [one["state"] for one in self.bus.on(ALERTS)]

    def taken(self) -> list[str]:
        """States of the messages that the webhook took."""
        return [body["state"] for _, body in list(self.hook.taken)]

    @contextmanager
    def flood(self) -> Iterator[None]:
        """A stream of the kernel's to each limit, nearly all of which is dropped."""
        ended = threading.Event()
        link = Ether(src=self.appliance.outside.mac, dst=self.appliance.inside.mac)

        def send(stream: int, port: int) -> None:
            frame = bytes(link / IP(src="198.18.0.1", dst="10.9.0.1") / UDP(sport=1, dport=port))
            sources = Sources(SOURCES, "random")
            self.generator.send(frame, sources=sources, rate=RATE, stream=stream, stop=ended.is_set)

        with ThreadPoolExecutor() as threads:
            running = [threads.submit(send, stream, port) for stream, port in enumerate(PORTS.values())]
            try:
                yield
            finally:
                ended.set()
        for one in running:
            one.result()

    def queued(self) -> list[str]:
        """The adapters for which messages wait on the disk."""
        return [name for (name,) in self._read("notify.db", "SELECT adapter FROM queue ORDER BY adapter")]

    def noted(self) -> list[str]:
        """The limits that people were told to be firing, as the disk has it."""
        (text,) = self._read("alerts.db", "SELECT value FROM meta WHERE key = 'kept'")[0]
        return sorted(json.loads(text)["groups"].get("drops", {}).get("told", ()))

    def _read(self, file: str, query: str) -> list[tuple[Any, ...]]:
        path = self.appliance.folder / "state" / file
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            return connection.execute(query).fetchall()


def until(holds: Callable[[], bool], seen: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.05)


@pytest.fixture
def told(appliance: Appliance) -> Iterator[Told]:
    """Two limits in force, and both ways to people open."""
    inside = appliance.inside.namespace
    with ExitStack() as stack:
        hook = stack.enter_context(hooked(inside, KEY.encode()))
        server = stack.enter_context(broker(namespace=inside))
        adapters = {
            "hook": {"kind": "webhook", "url": f"http://{HOST}:{hook.port}/", "credential": "hook-key"},
            "bus": {"kind": "mqtt", "host": HOST, "port": server.port, "encryption": "none"},
        }
        routes = [{"to": list(adapters), "tags": {"rule": "drops"}}]
        appliance.configure(
            store={"name": NODE},
            alerts={"group_wait": "2s", "rules": [RULE]},
            notify={"adapters": adapters, "routes": routes},
        )
        appliance.start()
        appliance.done("PUT", "/v1/creds/hook-key", {"value": KEY})
        for name, port in PORTS.items():
            limit = {"match": f"proto udp dport {port}", "key": "src", "rate": "1/h", "burst": "3"}
            appliance.done("PUT", f"/v1/limits/{name}", limit)
        appliance.done("POST", "/v1/nics/nic0/attach", {})
        bus = stack.enter_context(subscribed(inside, server.port, f"valkyrie/{NODE}/#"))
        generator = stack.enter_context(Generator(appliance.outside.namespace, appliance.outside.ifindex))
        yield Told(appliance, hook, bus, generator)


def test_a_flood_over_two_limits_is_told_once_to_each_and_so_is_its_end(told: Told) -> None:
    def both(states: list[str]) -> Callable[[], bool]:
        return lambda: told.taken() == told.heard() == states

    def seen() -> Any:
        return told.taken(), told.heard(), told.appliance.done("GET", "/v1/notify")

    with told.flood():
        until(both(["firing"]), seen)
        (_, firing), (published,) = told.hook.taken[0], told.bus.on(ALERTS)
        assert firing == published
        assert (firing["node"], firing["severity"]) == (NODE, "error")
        assert "2 firing" in firing["title"]
        assert {name for name in PORTS if name in firing["body"]} == set(PORTS)
        state = f"valkyrie/{NODE}/state/drops"
        until(lambda: [one["state"] for one in told.bus.on(state)] == ["firing"], lambda: told.bus.heard)
    until(both(["firing", "resolved"]), seen)
    (first, _), (second, resolved) = told.hook.taken
    assert resolved["key"] == firing["key"]
    assert first != second
    until(lambda: told.bus.on(state)[-1] == resolved, lambda: told.bus.heard)
    time.sleep(QUIET_S)
    assert both(["firing", "resolved"])(), seen()
    figures = told.appliance.done("GET", "/v1/status")["notifications"]
    assert (figures["queued"], figures["dropped"], figures["dead"]) == (0, 0, 0)
    assert told.hook.forged == 0


def test_kills_in_the_middle_lose_no_message_and_none_is_told_twice(told: Told) -> None:
    """The webhook is away at each kill: its message waits on the disk, the broker has had its own."""

    def seen() -> Any:
        return told.taken(), told.heard(), told.queued(), told.noted()

    def waits(states: list[str], noted: list[str]) -> Callable[[], bool]:
        return lambda: (told.heard(), told.queued(), told.noted()) == (states, ["hook"], noted)

    told.hook.status = 503
    with told.flood():
        until(waits(["firing"], sorted(PORTS)), seen)
        until(lambda: told.hook.refused > 0, seen)
        told.appliance.kill()
        told.hook.status = 200
        told.appliance.start()
        until(lambda: told.taken() == ["firing"], seen)
        until(lambda: told.queued() == [], seen)
        told.hook.status = 503
    until(waits(["firing", "resolved"], []), seen)
    told.appliance.kill()
    told.hook.status = 200
    told.appliance.start()
    until(lambda: told.taken() == ["firing", "resolved"], seen)
    time.sleep(QUIET_S)
    assert told.taken() == told.heard() == ["firing", "resolved"]
    assert told.queued() == []
    keys = {body["key"] for _, body in told.hook.taken} | {one["key"] for one in told.bus.on(ALERTS)}
    assert len(keys) == 1, "one alert, whoever is told and however often the daemon began again"
