# SPDX-License-Identifier: Apache-2.0
"""Two appliances in namespaces of their own and one store: who is active, who follows, who is fenced out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.appliance import READY_S, Appliance
from support.servers import Server, valkey_server
from support.way import SLOW, Way

AFTER_S = 5.0
ADDRESS = "10.9.0.2"
LATER = 4_000_000_000.0


@pytest.fixture
def shared() -> Iterator[Server]:
    """A server that both reach, over its Unix socket, from whatever namespace."""
    with valkey_server() as made:
        yield made


def wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def configure(appliance: Appliance, server: Server, name: str) -> None:
    store = {"name": name, "mode": "valkey", "valkey": {"url": server.unix_url, "timeout_ms": 1000}}
    appliance.configure(sync={"interval_seconds": 0.2}, store=store)


def kept(appliance: Appliance) -> dict[str, Any]:
    found: dict[str, Any] = appliance.done("GET", "/v1/status")["sync"]
    return found


def told(appliance: Appliance) -> dict[str, Any]:
    found: dict[str, Any] = appliance.done("GET", "/v1/standby")
    return found


def follow(appliance: Appliance, name: str, after: str | None = "5s") -> dict[str, Any]:
    found: dict[str, Any] = appliance.done("POST", "/v1/standby/follow", {"name": name, "after": after})
    return found


def names(appliance: Appliance) -> list[str]:
    return [limit["name"] for limit in appliance.done("GET", "/v1/limits")["limits"]]


def active(appliance: Appliance, server: Server) -> Way:
    """Policed as edge-1: the bucket of the world's address used up, overrides and a ban, all in the store."""
    configure(appliance, server, "edge-1")
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done(
        "PUT", "/v1/limits/slow/overrides", {"overrides": [{"prefix": "203.0.113.0/24", "rate": "9/s"}]}
    )
    appliance.done("PUT", "/v1/ban", {"prefix": "198.51.100.0/24", "for": "1h", "note": "flood"})
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(appliance)
    assert way.passed(10) == 3
    before = kept(appliance)["rounds"]
    wait_for(lambda: kept(appliance)["rounds"] >= before + 2, "no round of the sync ended")
    return way


def following(appliance: Appliance, server: Server, after: str | None = "5s") -> Way:
    """Another machine that had limits of its own, and follows edge-1."""
    configure(appliance, server, "edge-2")
    appliance.start()
    appliance.done("PUT", "/v1/limits/mine", SLOW | {"burst": "7"})
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    assert follow(appliance, "edge-1", after)["role"] == "follower"
    wait_for(lambda: names(appliance) == ["slow"], "the other's limits did not come")
    return Way(appliance)


def test_a_standby_takes_over_with_limits_and_buckets_and_the_former_owner_is_fenced_out(
    appliance: Appliance, other_appliance: Appliance, shared: Server
) -> None:
    one, two = appliance, other_appliance
    way_one = active(one, shared)
    way_two = following(two, shared)
    aside = json.loads((two.folder / "state" / "policy-before-standby.json").read_text())
    assert [limit["name"] for limit in aside["limits"]] == ["mine"]
    status, answer = two.ask("PUT", "/v1/limits/more", SLOW)
    assert (status, answer["error"]["what"]) == (409, "this appliance follows edge-1")
    one.done("PUT", "/v1/limits/fast", SLOW | {"match": "proto tcp", "rate": "5/s"})
    wait_for(lambda: names(two) == ["fast", "slow"], "a change did not come to the standby")
    time.sleep(AFTER_S)  # as long as it would wait if it took the other for silent
    assert told(two)["role"] == "follower"

    one.kill()
    began = time.monotonic()
    wait_for(lambda: told(two)["role"] == "successor", "no takeover")
    assert time.monotonic() - began < AFTER_S + 2
    assert way_two.passed(10) == 0
    assert names(two) == ["fast", "slow"]
    (override,) = two.done("GET", "/v1/limits/slow/overrides")["overrides"]
    assert (override["prefix"], override["rate"]) == ("203.0.113.0/24", "9/s")
    (ban,) = two.done("GET", "/v1/ban")["ban"]
    assert ban["prefix"] == "198.51.100.0/24"
    assert 3500 < ban["until"] - time.time() <= 3600
    assert two.done("GET", "/v1/limits/slow")["counters"]["passed"] == 3
    actions = [entry["action"] for entry in two.done("GET", "/v1/audit")["audit"]]
    assert actions[0] == "standby.take-over"
    assert "standby.follow" in actions
    wait_for(lambda: (kept(two)["state"], kept(two)["name"]) == ("ok", "edge-1"), "not active as edge-1")
    two.done("PUT", "/v1/limits/fast", SLOW | {"match": "proto tcp", "rate": "6/s"})

    one.start()
    wait_for(lambda: kept(one)["state"] == "refused", "the former owner was not fenced out")
    assert "valkyrie-ctl standby follow edge-1" in kept(one)["problem"]
    assert told(one)["fenced"]
    assert way_one.passed(5) == 0
    assert one.done("GET", "/v1/limits/fast")["rate"] == "5/s"

    assert follow(one, "edge-1", None)["own_name"] == "edge-1"
    wait_for(lambda: one.done("GET", "/v1/limits/fast")["rate"] == "6/s", "the newer policy did not come")
    assert one.ask("POST", "/v1/standby/end")[0] == 409
    assert one.ask("POST", "/v1/standby/take-over", {"force": False})[0] == 409
    assert one.done("POST", "/v1/standby/take-over", {"force": True})["role"] == "own"
    wait_for(lambda: kept(one)["state"] == "ok", "the name was not taken back")
    wait_for(lambda: kept(two)["state"] == "refused", "the standby was not fenced out")
    assert way_two.passed(5) == 0
    assert two.done("POST", "/v1/standby/end")["role"] == "own"
    wait_for(lambda: (kept(two)["state"], kept(two)["name"]) == ("ok", "edge-2"), "not under its own name")
    assert names(two) == ["fast", "slow"]


def test_a_standby_by_hand_waits_to_be_told_and_survives_kill_9_as_what_it_was(
    appliance: Appliance, other_appliance: Appliance, shared: Server
) -> None:
    one, two = appliance, other_appliance
    active(one, shared)
    way = following(two, shared, None)
    two.kill()
    two.start()
    assert (told(two)["role"], told(two)["after_s"], names(two)) == ("follower", None, ["slow"])
    wait_for(lambda: told(two)["sees_store"], "the store is not seen")
    assert one.stop() == 0
    assert two.done("POST", "/v1/standby/take-over", {"force": False})["role"] == "successor"
    two.kill()
    two.start()
    assert (told(two)["role"], kept(two)["name"]) == ("successor", "edge-1")
    wait_for(lambda: kept(two)["state"] == "ok", "not active after a restart")
    assert way.passed(10) == 0


def test_while_the_store_is_away_nobody_takes_over_and_the_active_one_stays(
    appliance: Appliance, other_appliance: Appliance, shared: Server
) -> None:
    one, two = appliance, other_appliance
    active(one, shared)
    following(two, shared)
    shared.stop()
    wait_for(lambda: told(two)["sees_store"] is False, "the standby did not see the store go")
    time.sleep(AFTER_S + 2)
    assert told(two)["role"] == "follower"
    shared.cont()
    wait_for(lambda: kept(one)["state"] == "ok" and told(two)["sees_store"], "the store is not seen again")
    time.sleep(2)
    assert told(two)["role"] == "follower"
    assert kept(one)["owner"]


def test_what_cannot_be_followed_is_refused_with_the_reason(appliance: Appliance, shared: Server) -> None:
    appliance.start()
    status, answer = appliance.ask("POST", "/v1/standby/follow", {"name": "edge-1"})
    assert (status, "embedded store" in answer["error"]["what"]) == (409, True)
    appliance.stop()
    configure(appliance, shared, "edge-1")
    appliance.start()
    wait_for(lambda: kept(appliance)["state"] == "ok", "the store was not used")
    assert appliance.ask("POST", "/v1/standby/follow", {"name": "edge-1"})[0] == 409
    assert appliance.ask("POST", "/v1/standby/follow", {"name": "edge-9"})[0] == 404
    assert appliance.ask("POST", "/v1/standby/follow", {"name": "Edge 9"})[0] == 400
    assert appliance.ask("POST", "/v1/standby/follow", {"name": "edge-9", "after": "1s"})[0] == 400
    assert appliance.ask("POST", "/v1/standby/take-over", {})[0] == 409
    assert appliance.ask("POST", "/v1/standby/end")[0] == 409
    assert told(appliance)["role"] == "own"
    waiting = appliance.done("POST", "/v1/standby/follow", {"name": "edge-9", "wait": True})
    assert (waiting["role"], waiting["active"]) == ("follower", None)
    assert appliance.ask("POST", "/v1/standby/take-over", {"force": True})[0] == 404
    assert appliance.done("POST", "/v1/standby/end")["role"] == "own"
    wait_for(lambda: kept(appliance)["state"] == "ok", "the own name was not taken up again")
