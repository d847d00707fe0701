# SPDX-License-Identifier: Apache-2.0
"""status, doctor, buckets, top and audit as people read them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ctl import Ctl, ctl_with
from valkyrie.control.cli import top as top_module

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 77,
    "started": 1_700_000_000.0,
    "enforcing": True,
    "serial": 4,
    "limits": 2,
    "overrides": 100_000,
    "exempts": 1,
    "bans": 3,
    "protect": ["198.51.100.9/32"],
    "nics": [
        {"nic": "eth0", "attached": True, "mode": "native", "wanted_mode": "auto",
         "protect": ["198.51.100.9/32"], "confirm_left_s": 41.6, "problem": ""},
        {"nic": "eth1", "attached": False, "mode": "", "wanted_mode": "native",
         "protect": [], "confirm_left_s": None, "problem": "away"},
    ],
    "program": {"id": 5},
    "table": {"buckets": 1_048_576, "live": 262_144, "evicted_live": 12, "events_lost": 0},
    "sync": {"state": "ok", "store": "valkey", "name": "edge", "lag_s": 0.4, "owed": 1200, "problem": ""},
    "reasons": {"no_limit": {"packets": 0, "bytes": 0}, "kernel_ban": {"packets": 12345, "bytes": 2_500_000}},
}  # fmt: skip
OPS = {
    "name": "ops", "kind": "slack", "state": "failing", "queued": 3, "dropped": 2, "dead": 1,
    "last_error": "answered 500\x1b[2J",
}  # fmt: skip
BUS = {
    "name": "bus", "kind": "mqtt", "state": "ok", "queued": 0, "dropped": 0, "dead": 0, "last_error": "",
}  # fmt: skip
NOTIFICATIONS: dict[str, Any] = {
    "failing": 1, "queued": 3, "dropped": 2, "dead": 1, "unheard": 5, "problems": ["the disk is full"],
    "adapters": [OPS, BUS],
}  # fmt: skip
BUCKET = {"limit": "web", "key": "198.51.100.7", "tokens_left": 3, "burst": 2000, "full_in_ns": 1_997_000_000}
TOP = {
    "limits": [
        {
            "name": "web",
            "action": "drop",
            "matched_per_s": 12345.6,
            "passed_per_s": 1000.4,
            "dropped_per_s": 11345.2,
        }
    ],
    "talkers": [{"key": "198.51.100.7", "limit": "web", "dropped": 54321, "would_drop": 0, "error": 0}],
}


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        made.good("limits", "set", "web", "--key", "src", "--rate", "1000/s")
        yield made


def test_status_tells_nics_table_and_reasons(ctl: Ctl) -> None:
    ctl.api.answers["/v1/status"] = STATUS
    lines = ctl.good("status").splitlines()
    assert "table           262.1k of 1M buckets in use (25.0 %)" in lines
    assert any(line.split() == ["evicted", "in", "use", "12"] for line in lines)
    eth0 = next(line for line in lines if line.startswith("eth0"))
    assert eth0.split(maxsplit=4) == [
        "eth0", "attached", "native", "198.51.100.9/32", "detaches in 42s unless confirmed",
    ]  # fmt: skip
    assert next(line for line in lines if line.startswith("eth1")).split() == [
        "eth1",
        "waiting",
        "native",
        "away",
    ]
    assert lines[-1].split() == ["kernel", "ban", "12.3k", "2.5MB"]
    assert not any("no limit" in line for line in lines)
    assert ctl.json("status") == STATUS


def test_status_tells_what_notifications_did_not_get_through_and_why(ctl: Ctl) -> None:
    ctl.api.answers["/v1/status"] = {**STATUS, "notifications": NOTIFICATIONS}
    told = ctl.good("status")
    lines = told.splitlines()
    assert "\x1b" not in told
    assert lines[0] == "notifications: the disk is full"
    said = "by 2 adapters, 1 failing, 3 queued, 2 dropped, 1 dead, 5 without an adapter"
    assert f"notifications   {said}" in lines
    row = next(line for line in lines if line.startswith("ops "))
    assert row.split(maxsplit=6)[:6] == ["ops", "slack", "failing", "3", "2", "1"]
    assert "answered 500" in row
    assert not any(line.startswith("bus ") for line in lines)
    assert ctl.json("status")["notifications"] == NOTIFICATIONS


def test_status_is_short_while_notifications_do_well_and_says_when_nobody_is_told(ctl: Ctl) -> None:
    well = {**dict.fromkeys(NOTIFICATIONS, 0), "problems": [], "adapters": [BUS]}
    ctl.api.answers["/v1/status"] = {**STATUS, "notifications": well}
    told = ctl.good("status")
    assert "notifications   by 1 adapter" in told.splitlines()
    assert "NOTIFIES" not in told
    ctl.api.answers["/v1/status"] = {**STATUS, "notifications": {**well, "adapters": []}}
    assert "notifications   to nobody" in ctl.good("status")


def test_status_without_a_nic_says_that_nothing_is_limited(ctl: Ctl) -> None:
    ctl.api.answers["/v1/status"] = {**STATUS, "nics": []}
    assert "nothing is limited" in ctl.good("status")


def test_buckets_list_asks_for_what_was_given(ctl: Ctl) -> None:
    ctl.api.buckets = [BUCKET]
    text = ctl.good("buckets", "list", "web", "--key", "198.51.100.7", "--count", "5")
    assert ctl.sent().query == {"limit": "web", "key": "198.51.100.7", "live": "1", "count": "5"}
    assert text.splitlines()[1].split() == ["web", "198.51.100.7", "3", "2000", "1s997ms"]
    ctl.good("buckets", "list", "--all")
    assert ctl.sent().query == {"live": "0", "count": "100"}


def test_buckets_show_and_reset_name_their_key(ctl: Ctl) -> None:
    ctl.api.buckets = [BUCKET]
    ctl.good("buckets", "show", "web", "198.51.100.7")
    assert (ctl.sent().path, ctl.sent().query) == ("/v1/buckets/web", {"key": "198.51.100.7"})
    assert ctl.good("buckets", "reset", "web", "198.51.100.7") == "web: 1 bucket full again\n"
    assert ctl.sent().body == {"limit": "web", "key": "198.51.100.7"}
    ctl.good("buckets", "reset", "web", "--all")
    assert ctl.sent().body == {"limit": "web", "key": None}


@pytest.mark.parametrize("args", [(), ("198.51.100.7", "--all")])
def test_all_buckets_are_never_reset_by_leaving_out_the_key(ctl: Ctl, args: tuple[str, ...]) -> None:
    before = len(ctl.api.requests)
    result = ctl("buckets", "reset", "web", *args)
    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert len(ctl.api.requests) == before


@pytest.mark.parametrize("count", ["0", "100001", "many"])
def test_counts_have_bounds(ctl: Ctl, count: str) -> None:
    assert ctl("buckets", "list", "--count", count).exit_code == 2


def test_top_once_prints_one_sample_that_had_time_to_measure(ctl: Ctl) -> None:
    ctl.api.answers["/v1/top"] = TOP
    before = len(ctl.api.requests)
    text = ctl.good("top", "--once", "--count", "7")
    assert [request.query for request in ctl.api.requests[before:]] == [{"count": "7"}] * 2
    assert ["web", "drop", "12.3k", "1000", "11.3k"] in [line.split() for line in text.splitlines()]
    assert text.splitlines()[-1].split() == ["198.51.100.7", "web", "54.3k", "0"]


def test_the_first_rates_of_top_are_not_those_since_somebody_looked_long_ago(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(top_module, "repeat", lambda sample, out: asked.append(len(ctl.api.requests)))
    ctl.api.answers["/v1/top"] = TOP
    before = len(ctl.api.requests)
    ctl.good("top")
    assert asked == [before + 1]


def test_audit_tells_who_did_what(ctl: Ctl) -> None:
    entry = {
        "at": 1_700_000_000.0, "uid": 0, "user": "root", "pid": 9,
        "action": "limit.set", "target": "web", "detail": {"rate": "1/s", "burst": None},
    }  # fmt: skip
    ctl.api.answers["/v1/audit"] = {"audit": [entry]}
    row = ctl.good("audit", "--count", "3").splitlines()[1].split()
    assert row[2:] == ["root", "limit.set", "web", "rate=1/s", "burst=null"]
    assert ctl.sent().query == {"count": "3"}


CHECKS = [
    {"name": "kernel", "status": "ok", "found": "6.18", "mend": ""},
    {"name": "bcc", "status": "fail", "found": "not installed", "mend": "apt install python3-bpfcc"},
]


def test_doctor_asks_the_daemon_and_fails_with_a_failing_check(ctl: Ctl) -> None:
    ctl.api.answers["/v1/doctor"] = {"checks": CHECKS}
    result = ctl("doctor")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].split()[:2] == ["valkyried", "ok"]
    assert "apt install python3-bpfcc" in result.stdout
    assert result.stdout.endswith("1 of 3 checks fail\n")
    ctl.api.answers["/v1/doctor"] = {"checks": CHECKS[:1]}
    assert ctl.good("doctor").endswith("nothing has to be mended\n")


def test_doctor_works_without_the_daemon_and_says_that_it_is_missing(ctl: Ctl, tmp_path: Path) -> None:
    result = ctl("--socket", str(tmp_path / "none"), "doctor", "-o", "json")
    assert result.exit_code == 1
    daemon, *rest = json.loads(result.stdout)["checks"]
    assert (daemon["name"], daemon["status"]) == ("valkyried", "fail")
    assert str(tmp_path / "none") in daemon["found"]
    assert "kernel" in [check["name"] for check in rest]
