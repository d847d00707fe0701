# SPDX-License-Identifier: Apache-2.0
"""The real daemon under a flood: alerts rise, are told as one, survive a kill, and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.appliance import Appliance

PORTS = {"web": 7, "dns": 11}
PAUSE_S = 0.002
DEADLINE_S = 40
DROPS = {
    "name": "drops",
    "when": "drop-rate",
    "above": "50/s",
    "for": "1s",
    "clear_after": "3s",
    "severity": "error",
}
SETTINGS = {"shipped": True, "group_wait": "2s", "rules": [DROPS]}


@contextmanager
def flooding(appliance: Appliance) -> Iterator[None]:
    """Some hundred datagrams a second for each limit, nearly all of which are dropped."""
    sender, ended = appliance.sender(), threading.Event()

    def run() -> None:
        while not ended.wait(PAUSE_S):
            for port in PORTS.values():
                sender.sendto(b"x", ("10.9.0.1", port))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def alerts(appliance: Appliance) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = appliance.done("GET", "/v1/alerts")["alerts"]
    return [one for one in listed if one["rule"] == "drops"]


def until(appliance: Appliance, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + DEADLINE_S
    while not holds(found := alerts(appliance)):
        assert time.monotonic() < deadline, (found, appliance.done("GET", "/v1/alerts"))
        time.sleep(0.2)
    return found


def told(found: list[dict[str, Any]]) -> bool:
    return len(found) == len(PORTS) and all(one["told"] for one in found)


def said_killed(appliance: Appliance) -> bool:
    everything = appliance.done("GET", "/v1/alerts")["alerts"]
    return any(one["rule"] == "daemon-restarted" and "killed" in one["what"] for one in everything)


def policing(appliance: Appliance) -> None:
    appliance.configure(alerts=SETTINGS)
    appliance.start()
    for name, port in PORTS.items():
        limit = {"match": f"proto udp dport {port}", "key": "src", "rate": "1/h", "burst": "3"}
        appliance.done("PUT", f"/v1/limits/{name}", limit)
    appliance.done("POST", "/v1/nics/nic0/attach", {})


def ended(appliance: Appliance) -> list[str]:
    """Stop the daemon; the lines of its log that are messages of the rule."""
    process = appliance.process
    assert process is not None
    process.terminate()
    _, log = process.communicate(timeout=DEADLINE_S)
    appliance.process = None
    return [line for line in log.splitlines() if "alerts.outbox" in line and ": drops: " in line]


def test_a_flood_raises_one_message_for_all_limits_and_its_end_another(appliance: Appliance) -> None:
    policing(appliance)
    with flooding(appliance):
        found = until(appliance, told)
        assert {one["subject"] for one in found} == set(PORTS)
        assert appliance.done("GET", "/v1/status")["alerts"]["worst"] == "error"
        would = appliance.done("GET", "/v1/alerts/test?name=drops")
        assert {one["subject"] for one in would["readings"] if one["above"]} == set(PORTS)
    until(appliance, lambda found: not found)
    history = [
        one for one in appliance.done("GET", "/v1/alerts/history")["history"] if one["rule"] == "drops"
    ]
    assert sorted((one["change"], one["subject"]) for one in history) == [
        ("firing", "dns"), ("firing", "web"), ("resolved", "dns"), ("resolved", "web"),
    ]  # fmt: skip
    time.sleep(3.5)  # group_wait and a look: what must not come has no event
    assert appliance.done("GET", "/v1/notify")["unrouted"] >= 2, "they came to the dispatcher"
    lines = ended(appliance)
    assert len(lines) == 2, lines
    assert "2 firing" in lines[0]
    assert "drops: resolved" in lines[1]


def test_what_fires_survives_a_kill_is_not_told_again_and_ends_when_it_is_over(appliance: Appliance) -> None:
    policing(appliance)
    with flooding(appliance):
        before = until(appliance, told)
        appliance.kill()
        appliance.start()
        after = until(appliance, told)
        assert {one["fired"] for one in after} == {one["fired"] for one in before}
        until(appliance, lambda _: said_killed(appliance))
    until(appliance, lambda found: not found)
    time.sleep(3.5)  # group_wait and a look
    lines = ended(appliance)
    assert [line.partition(": drops: ")[2].partition(":")[0] for line in lines] == ["resolved"]


def test_a_limit_that_is_deleted_and_a_nic_that_is_taken_are_told_loudly(appliance: Appliance) -> None:
    own = {"name": "web-drops", "when": "drop-rate", "limit": "web", "above": "1/s"}
    appliance.configure(alerts={**SETTINGS, "rules": [own]})
    appliance.start()
    status, refused = appliance.ask("PUT", "/v1/alerts/rules/x", {**own, "name": "x"})
    assert (status, refused["error"]["where"]) == (400, "name")
    rule = {name: value for name, value in own.items() if name != "name"}
    status, refused = appliance.ask("PUT", "/v1/alerts/rules/x", rule)
    assert (status, refused["error"]["code"]) == (404, "not-found")
    problem = ["rule web-drops: no such limit: web"]
    assert appliance.done("GET", "/v1/status")["alerts"]["problems"] == problem
    appliance.done("PUT", "/v1/limits/web", {"key": "src", "rate": "1/h"})
    assert appliance.done("GET", "/v1/status")["alerts"]["problems"] == []
    appliance.done("PUT", "/v1/alerts/rules/x", rule)
    appliance.done("DELETE", "/v1/limits/web")
    problems = appliance.done("GET", "/v1/status")["alerts"]["problems"]
    assert problems == [*problem, "rule x: no such limit: web"]
