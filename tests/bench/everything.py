# SPDX-License-Identifier: Apache-2.0
"""ns a packet of a daemon with everything on, beside another with all that off: metrics and traces sent each
second, metrics scraped, drop events read, followed and counted in top talkers, alerts judged.

The harness runs the program of each; the daemons work meanwhile.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from bench.daemon import NIC, Place, _place
from bench.harness import Case, Harness, Sources, udp4
from bench.rows import Row, row
from bench.telemetry import _scraped
from support.otlp import http_collector
from valkyrie.control.dataplane import pins
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.lab.daemon import Daemon

BUDGET = "<= 1.03"
ALL_OFF = "events: {sample: 0}\nalerts: {shipped: false}\n"
RULES = (
    "[{name: drops, when: drop-rate, above: 1000/s, for: 10s}, {name: share, when: drop-share, above: 50%}]"
)
ALL_ON = f"events: {{sample: 1, rate: 1000}}\nalerts: {{rules: {RULES}}}\n"
OTLP = {"enabled": True, "interval_seconds": 1, "traces": True}
PORTS = {"passes": 53, "is dropped": 7}
LIMITS = {
    "wide": {"match": f"proto udp dport {PORTS['passes']}", "key": "src", "rate": "10/h", "burst": "100000"},
    "tight": {"match": f"proto udp dport {PORTS['is dropped']}", "key": "src", "rate": "1/h", "burst": "1"},
}
SOURCES, PACKETS, ROUNDS = Sources(1_000), 400_000, 61
SETTLE_S, SCRAPE_S = 3.0, 1.0


def run() -> Iterator[Row]:
    """Two copies of one program differ by some percent for good, by where their tables lie: so each copy has
    everything on in one turn and off in the other, and a ratio is the geometric mean of two.
    """
    with Harness() as harness, ExitStack() as stack:
        one, other = (stack.enter_context(_place()) for _ in range(2))
        turns = [_turn(harness, off=one, on=other), _turn(harness, off=other, on=one)]
    for what in PORTS:
        first, second = ([on / off for on, off in turn[what]] for turn in turns)
        head = f"ns a packet that {what}"
        yield row(f"{head}: everything off", median(off for turn in turns for _, off in turn[what]), "ns")
        both = median(math.sqrt(a * b) for a, b in zip(first, second, strict=True))
        yield row(f"{head}: everything on / everything off", both, "x", BUDGET)


def _turn(harness: Harness, *, off: Place, on: Place) -> dict[str, list[tuple[int, int]]]:
    """ns a packet with everything on, and off, round by round."""
    with ExitStack() as stack:
        quiet, _ = _policing(stack, off, ALL_OFF)
        busy, daemon = _policing(stack, on, ALL_ON)
        collector = stack.enter_context(http_collector("127.0.0.1", on.inside.call))
        daemon.client.put("/v1/telemetry", {**OTLP, "endpoint": collector.url})
        followed = _watched(stack, daemon)
        time.sleep(SETTLE_S)
        found = {}
        for what, port in PORTS.items():
            cases = {name: Case(fd, udp4(port), SOURCES) for name, fd in (("off", quiet), ("on", busy))}
            taken = harness.compare(cases, packets=PACKETS, rounds=ROUNDS)
            found[what] = list(zip(taken["on"], taken["off"], strict=True))
        assert collector.metrics, "nothing came to the collector"
        assert followed, "no event came to the follower"
    return found


def _policing(stack: ExitStack, place: Place, settings: str) -> tuple[int, Daemon]:
    """A descriptor of its program; the limits are in force, and telemetry is off."""
    daemon = stack.enter_context(Daemon(place.inside, place.folder, settings))
    daemon.client.put("/v1/telemetry", {"enabled": False})
    daemon.client.post(f"/v1/nics/{NIC}/attach", {"mode": "auto"})
    for name, fields in LIMITS.items():
        daemon.client.put(f"/v1/limits/{name}", fields)
    return stack.enter_context(Dataplane(place.pin_dir)).fd(pins.PROGRAM), daemon


def _watched(stack: ExitStack, daemon: Daemon) -> list[str]:
    """The last event that came to a follower; somebody scrapes as well, until the stack ends."""
    last: list[str] = []
    ended = threading.Event()

    def follow() -> None:
        with contextlib.suppress(ValkyrieError):  # it ends with the daemon
            for event in daemon.client.stream("/v1/events"):
                last[:] = [str(event)]

    def scrape() -> None:
        while not ended.wait(SCRAPE_S):
            _scraped(daemon)

    threading.Thread(target=follow, daemon=True).start()
    scraping = threading.Thread(target=scrape)
    scraping.start()
    stack.callback(scraping.join)
    stack.callback(ended.set)
    return last
