# SPDX-License-Identifier: Apache-2.0
"""A thousand changes of the ruleset under traffic: no packet falls into a gap, no bucket is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.appliance import PORT, Appliance
from support.way import FREE_PORT, SLOW, Way

CHANGES = 1000
PAUSE_S = 0.0005
HALF = {"match": "proto udp dport 11", "key": "src", "rate": "1/h", "burst": "1000"}

Change = tuple[str, str, Any]


class Flow(threading.Thread):
    """Numbered datagrams that must all arrive, and beside each one that must never."""

    def __init__(self, appliance: Appliance) -> None:
        super().__init__()
        self._sender = appliance.sender()
        self._ended = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._ended.wait(PAUSE_S):
            self._sender.sendto(b"x", ("10.9.0.1", PORT))
            self._sender.sendto(self.sent.to_bytes(4, "big"), ("10.9.0.1", FREE_PORT))
            self.sent += 1

    def end(self) -> None:
        self._ended.set()
        self.join()


@contextmanager
def flowing(appliance: Appliance) -> Iterator[Flow]:
    flow = Flow(appliance)
    flow.start()
    try:
        yield flow
    finally:
        flow.end()


def wide(rate: int) -> dict[str, str]:
    """The limit that the numbered datagrams meet."""
    return {"match": f"proto udp dport {FREE_PORT}", "key": "src", "rate": f"{rate}/s"}


def changes() -> Iterator[Change]:
    """Changes of every kind: to the flow's own limit, beside it, and of who is exempt or banned."""
    for n in range(CHANGES // 10):
        net, other = f"192.0.2.{n}", f"/v1/limits/other{n % 7}"
        yield "PUT", "/v1/limits/wide", wide(1_000_000 + n)
        yield "PUT", other, {"match": f"src 198.18.{n}.0/24", "key": "src", "rate": "5/s"}
        yield "PUT", f"{other}/overrides", {"overrides": [{"prefix": f"198.18.{n}.0/28", "rate": "9/s"}]}
        yield "PUT", "/v1/ban", {"prefix": net, "for": "10m"}
        yield "PUT", "/v1/exempt", {"prefix": net}
        yield "PUT", "/v1/limits/wide", wide(2_000_000 + n)
        yield "DELETE", f"/v1/ban?prefix={net}", None
        yield "DELETE", f"/v1/exempt?prefix={net}", None
        yield "PUT", "/v1/limits/all", {"key": "global", "rate": f"{1_000_000 + n}/s"}
        yield "DELETE", other if n % 2 else "/v1/limits/all", None


def test_a_thousand_changes_under_traffic_leave_no_gap_and_forget_no_bucket(appliance: Appliance) -> None:
    appliance.start()
    for name, body in (("slow", SLOW), ("half", HALF), ("wide", wide(500_000))):
        appliance.done("PUT", f"/v1/limits/{name}", body)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    way, half = Way(appliance), appliance.receiver(11)
    assert way.passed(10) == 3
    for _ in range(400):
        way.sender.sendto(b"x", ("10.9.0.1", 11))
    assert {half.recv(16) for _ in range(400)} == {b"x"}
    serial = appliance.done("GET", "/v1/status")["serial"]

    with flowing(appliance) as flow:
        for change in changes():
            appliance.done(*change)

    assert [int.from_bytes(way.free.recv(16), "big") for _ in range(flow.sent)] == list(range(flow.sent))
    assert flow.sent > CHANGES
    assert way.passed(10) == 0
    assert appliance.done("GET", "/v1/status")["serial"] >= serial + CHANGES
    bucket = appliance.done("GET", "/v1/buckets/half?key=10.9.0.2")
    assert bucket["tokens_left"] == 600
