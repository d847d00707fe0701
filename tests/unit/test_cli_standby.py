# SPDX-License-Identifier: Apache-2.0
"""standby follow, take-over, status and end: what is asked of the daemon, and what people read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ctl import Ctl, ctl_with
from support.fake_api import RefusedError

OWN: dict[str, Any] = {
    "role": "own", "name": "", "own_name": "edge-2", "after_s": None, "active": None, "heard_s": None,
    "sees_store": None, "policy_age_s": None, "fenced": False, "problem": "", "aside": None,
    "restored": None, "restored_s": None,
}  # fmt: skip
FOLLOWER = OWN | {
    "role": "follower", "name": "edge-1", "after_s": 10.0, "active": "alpha", "heard_s": 0.42,
    "sees_store": True, "policy_age_s": 1.2, "aside": "/var/lib/valkyrie/policy-before-standby.json",
}  # fmt: skip


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("words", "body"),
    [
        ((), {"name": "edge-1", "after": "10s", "wait": False}),
        (("--after", "30s", "--wait"), {"name": "edge-1", "after": "30s", "wait": True}),
        (("--manual",), {"name": "edge-1", "after": None, "wait": False}),
    ],
)
def test_follow_asks_for_what_was_typed(ctl: Ctl, words: tuple[str, ...], body: dict[str, Any]) -> None:
    ctl.api.answers["/v1/standby/follow"] = FOLLOWER
    lines = ctl.good("standby", "follow", "edge-1", *words).splitlines()
    assert ctl.sent().body == body
    told = [" ".join(line.split()) for line in lines]
    assert "role follows edge-1" in told
    assert "active alpha, heard of 0.4 s ago" in told
    assert "takes over after 10s of silence" in told
    assert "policy as of 1s ago" in told
    assert "policy from before /var/lib/valkyrie/policy-before-standby.json" in told


def test_a_time_and_by_hand_together_are_refused(ctl: Ctl) -> None:
    assert ctl("standby", "follow", "edge-1", "--manual", "--after", "9s").exit_code == 2
    assert ctl("standby", "follow", "edge-1", "--after", "soon").exit_code == 2
    assert ctl.api.requests == []


def test_a_store_that_is_not_seen_is_said_and_not_taken_for_nobody(ctl: Ctl) -> None:
    ctl.api.answers["/v1/standby"] = FOLLOWER | {"active": None, "sees_store": False, "problem": "it is away"}
    text = ctl.good("standby", "status")
    assert "unknown: the store is not seen" in text
    assert "it is away" in text
    ctl.api.answers["/v1/standby"] = FOLLOWER | {"active": None}
    assert "nobody" in ctl.good("standby", "status")


def test_take_over_is_forced_only_when_asked(ctl: Ctl) -> None:
    done = OWN | {"role": "successor", "name": "edge-1", "restored": 8, "restored_s": 0.31}
    ctl.api.answers["/v1/standby/take-over"] = done
    text = ctl.good("standby", "take-over")
    assert ctl.sent().body == {"force": False}
    assert "active as edge-1, whose place it has taken" in text
    assert "8 buckets in 0.3 s" in text
    ctl.good("standby", "take-over", "--force")
    assert ctl.sent().body == {"force": True}


def test_one_that_was_fenced_out_is_told_what_to_do(ctl: Ctl) -> None:
    ctl.api.answers["/v1/standby"] = OWN | {"own_name": "edge-1", "fenced": True}
    assert "valkyrie-ctl standby follow edge-1" in ctl.good("standby", "status")


def test_end_says_what_it_is_now_and_a_refusal_ends_with_its_code(ctl: Ctl) -> None:
    ctl.api.answers["/v1/standby/end"] = OWN
    assert "active as edge-2, a standby of nobody" in ctl.good("standby", "end")
    ctl.api.refuse = RefusedError(
        409, "conflict", "this appliance is no standby", "valkyrie-ctl standby status"
    )
    assert ctl("standby", "end").exit_code == 4
