# SPDX-License-Identifier: Apache-2.0
"""What `status` says of the store, and when people are told that it changed."""

from __future__ import annotations

from typing import Any

import pytest

from valkyrie.control.cli.status import kept
from valkyrie.control.durable.standing import Standing

SYNC: dict[str, Any] = {
    "state": "ok", "store": "valkey", "name": "edge", "lag_s": 75.2, "owed": 0, "problem": "it hangs",
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "in valkey as edge, 1m15s behind"),
        ({"owed": 1200, "lag_s": 0.2}, "in valkey as edge, 1s behind, 1200 buckets to write"),
        ({"state": "starting"}, "in valkey as edge: not yet"),
        ({"state": "away"}, "in valkey as edge: away for 1m15s: it hangs"),
        ({"state": "off"}, "in no store (sync.enabled is off)"),
    ],
)
def test_status_says_where_the_state_is_kept_and_how_far_behind(said: dict[str, Any], told: str) -> None:
    assert kept(SYNC | said) == told


def test_a_change_is_told_once_and_the_problem_is_always_the_latest() -> None:
    told: list[str] = []
    standing = Standing(lambda kind, what: told.append(f"{kind}: {what}"))
    standing.now("ok", "", "redis")
    assert told == []
    for problem in ("no connection", "no connection", "it is loading"):
        standing.now("away", problem, "redis")
    assert told == ["sync: the store redis is away: no connection"]
    assert standing.problem == "it is loading"
    standing.now("ok", "", "redis")
    assert len(told) == 2
    assert standing.problem == ""


def test_a_standing_that_begins_anew_keeps_no_problem_of_before() -> None:
    standing = Standing(lambda kind, what: None)
    standing.now("refused", "edge-2 syncs under the name edge", "redis", fenced=True)
    standing.begin()
    assert (standing.phase, standing.problem, standing.fenced) == ("starting", "", False)
