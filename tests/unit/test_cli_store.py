# SPDX-License-Identifier: Apache-2.0
"""store status, check and consume as people read them, and how they end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ctl import Ctl, ctl_with
from support.fake_api import RefusedError

OPERATION = {"count": 90, "errors": 2, "p50_ms": 0.21, "p95_ms": 0.3, "p99_ms": 0.44}
STATUS: dict[str, Any] = {
    "name": "edge", "chain": ["redis", "embedded"], "in_use": "embedded", "when_all_fail": "fail_closed",
    "problem": "", "switch_overs": 3, "fail_backs": 2, "all_aways": 0, "degraded": 5, "carried": 41,
    "forgotten": 0,
    "sync": {"state": "ok", "store": "redis", "name": "edge", "lag_s": 0.4, "problem": ""},
    "stores": [
        {"name": "redis", "state": "well", "detail": "redis 7.0.15", "latency_ms": 0.3, "well_s": 3.0,
         "hold_s": 20.0, "connections": 2, "operations": {"try_consume": OPERATION},
         "extra": {"breaker_opened": 1}},
        {"name": "embedded", "state": "in-use", "detail": "started", "latency_ms": 1.5, "well_s": None,
         "hold_s": 5.0, "connections": 1, "operations": {}, "extra": {}},
    ],
}  # fmt: skip
STEP = {"name": "connect", "state": "ok", "what": "connected and let in, in 1.0 ms", "hint": ""}
REFUSED = {"name": "connect", "state": "fail", "what": "wrong password", "hint": "run creds set"}
DECISION = {
    "allowed": True, "remaining": 4, "retry_after": 0.0, "reset_after": 0.5, "store": "redis",
    "degraded": False, "took_ms": 0.31,
}  # fmt: skip


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        yield made


def test_status_tells_the_store_in_use_and_how_each_does(ctl: Ctl) -> None:
    ctl.api.answers["/v1/store"] = STATUS
    lines = ctl.good("store", "status").splitlines()
    assert "in use         embedded" in lines
    assert "chain          redis -> embedded" in lines
    assert "switches       3 over, 2 back, 0 with every store away" in lines
    assert "sync           ok, redis as edge, 0.4 s behind" in lines
    (redis,) = [line.split() for line in lines if line.startswith("redis ")]
    assert redis[:12] == ["redis", "well", "0.30", "ms", "90", "2", "0.21", "ms", "0.44", "ms", "1", "used"]
    assert "used again after 17 s of health; redis 7.0.15" in " ".join(redis)


def test_status_before_any_store_has_started_says_why(ctl: Ctl) -> None:
    bare = {name: STATUS[name] for name in ("name", "chain", "when_all_fail", "sync")}
    ctl.api.answers["/v1/store"] = {**bare, "in_use": None, "problem": "no credential p", "stores": []}
    out = ctl.good("store", "status")
    assert "problem        no credential p" in out
    assert "no store has started" in out


def test_status_for_programs_is_what_the_api_says(ctl: Ctl) -> None:
    ctl.api.answers["/v1/store"] = STATUS
    assert ctl.json("store", "status") == STATUS


def test_a_check_that_fails_says_what_to_mend_and_ends_with_one(ctl: Ctl) -> None:
    stores = [
        {"store": "embedded", "ok": True, "steps": [STEP]},
        {"store": "redis", "ok": False, "steps": [REFUSED]},
    ]
    ctl.api.answers["/v1/store/check"] = {"stores": stores}
    result = ctl("store", "check")
    assert result.exit_code == 1
    assert "redis: run creds set" in result.stdout
    ctl.api.answers["/v1/store/check"] = {"stores": stores[:1]}
    assert ctl("store", "check").exit_code == 0


def test_consume_by_a_limits_name_and_by_a_rate(ctl: Ctl) -> None:
    ctl.api.answers["/v1/store/consume"] = DECISION
    out = ctl.good("store", "consume", "203.0.113.9", "--limit", "web", "-n", "2")
    assert out == "allowed (redis, 0.31 ms): 4 left, full in 0.500 s\n"
    assert ctl.sent().body == {"key": "203.0.113.9", "n": 2, "limit": "web", "rate": None, "burst": None}
    ctl.good("store", "consume", "u", "--rate", "10/m", "--burst", "3")
    assert ctl.sent().body == {"key": "u", "n": 1, "limit": None, "rate": "10/m", "burst": "3"}


def test_a_refusal_says_when_to_come_again(ctl: Ctl) -> None:
    refused = {**DECISION, "allowed": False, "remaining": 0, "retry_after": 1.25, "degraded": True}
    ctl.api.answers["/v1/store/consume"] = refused
    assert "refused (redis, 0.31 ms, degraded): again in 1.250 s" in ctl.good(
        "store", "consume", "u", "--rate", "1/s"
    )
    ctl.api.answers["/v1/store/consume"] = {**refused, "retry_after": None}
    assert "9 tokens are more than the burst" in ctl.good("store", "consume", "u", "--rate", "1/s", "-n", "9")


@pytest.mark.parametrize("args", [[], ["--limit", "web", "--rate", "1/s"], ["--rate", "fast"]])
def test_consume_wants_one_limit_that_it_understands(ctl: Ctl, args: list[str]) -> None:
    result = ctl("store", "consume", "u", *args)
    assert result.exit_code == 2
    assert not ctl.api.requests


def test_a_store_that_fails_has_an_exit_code_of_its_own(ctl: Ctl) -> None:
    ctl.api.refuse = RefusedError(503, "store-unavailable", "every store is away", "mend it")
    result = ctl("store", "consume", "u", "--rate", "1/s")
    assert result.exit_code == 10
    assert "mend it" in result.stderr
