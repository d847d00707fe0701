# SPDX-License-Identifier: Apache-2.0
"""limits suggest and compare over the real daemon: what was sent is seen, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.appliance import PORT, Appliance
from support.way import SLOW, Way

DEADLINE_S = 20


@pytest.fixture
def way(appliance: Appliance) -> Way:
    """Policed, and the bucket of the world's address used up: every packet is dropped."""
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    made = Way(appliance)
    assert made.passed(10) == 3
    return made


def ctl(appliance: Appliance, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [
        sys.executable,
        "-m",
        "valkyrie.control.cli.main",
        "--socket",
        str(appliance.folder / "v.sock"),
    ]
    return subprocess.Popen(
        [*command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def actions(appliance: Appliance) -> list[str]:
    return [entry["action"] for entry in appliance.done("GET", "/v1/audit?count=20")["audit"]]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def seen(appliance: Appliance, way: Way, *words: str) -> tuple[dict[str, Any], int]:
    """The answer of a command that observes for a while, and how many packets came meanwhile at most."""
    process, sent = ctl(appliance, *words, "-o", "json"), 0
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        way.passed(5)
        sent += 5
        time.sleep(0.02)
    out, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    return json.loads(out), sent


def test_suggest_sees_what_limits_drop_and_proposes_a_rate(appliance: Appliance, way: Way) -> None:
    match = f"proto udp dport {PORT}"
    answer, sent = seen(appliance, way, "limits", "suggest", "--match", match, "--key", "src", "--for", "2s")
    assert answer["keys_seen"] == answer["one_key_in"] == answer["one_packet_in"] == 1
    assert 20 < answer["packets_seen"] == answer["figures"]["seen"] <= sent
    (chosen,) = [one for one in answer["choices"] if one["mark"] == "proposed"]
    assert chosen["ordinary_share"] < 0.001
    assert min(one["ordinary_share"] for one in answer["choices"]) == 0
    assert [one["name"] for one in appliance.done("GET", "/v1/limits")["limits"]] == ["slow"]
    until(lambda: "observe.end" in actions(appliance))
    assert way.passed(5) == 0


def test_compare_tries_another_rate_on_the_same_packets(appliance: Appliance, way: Way) -> None:
    tried = ("--rate", "100000/s", "--for", "2s")
    answer, _ = seen(appliance, way, "limits", "compare", "slow", *tried)
    live, other = answer["choices"]
    assert (live["mark"], live["rate"], live["burst"]) == ("live", "1/h", "3")
    assert live["dropped"] == answer["packets_seen"] - 3
    assert (other["mark"], other["dropped"], other["dropped_error"]) == ("tried", 0, 0)


def test_who_is_killed_leaves_no_observer_and_neither_does_a_daemon(appliance: Appliance, way: Way) -> None:
    process = ctl(appliance, "limits", "suggest", "--key", "src", "--for", "10m")
    try:
        until(lambda: "observe" in actions(appliance))
    finally:
        process.kill()
        process.communicate()
    until(lambda: "observe.end" in actions(appliance))
    process = ctl(appliance, "limits", "suggest", "--key", "src", "--for", "10m")
    try:
        until(lambda: actions(appliance).count("observe") == 2)
        appliance.kill()
        assert way.passed(5) == 0
        appliance.start()
        assert process.wait(DEADLINE_S) == 0
        assert way.passed(5) == 0
    finally:
        process.kill()
        process.communicate()
    explained = appliance.done("POST", "/v1/explain", {"packet": f"src 10.9.0.9 proto udp dport {PORT}"})
    assert [one["name"] for one in explained["limits"]] == ["slow"]


def test_what_can_not_be_observed_is_told(appliance: Appliance, way: Way) -> None:
    for words, status, told in (
        (("compare", "slwo", "--rate", "1/s"), 3, b"slow"),
        (("suggest", "--key", "id"), 2, b"key"),
        (("suggest", "--key", "src", "--match", "dprot 7"), 2, b"dprot"),
    ):
        process = ctl(appliance, "limits", *words)
        said = process.communicate(timeout=DEADLINE_S)[1]
        assert (process.returncode, told in said) == (status, True), said
