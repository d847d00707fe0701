# SPDX-License-Identifier: Apache-2.0
"""What a rule may say, and what it is told when it is wrong."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from valkyrie.control.alerts.figures import TEXT, parse_seconds, parse_share
from valkyrie.control.alerts.kinds import KINDS, When
from valkyrie.control.alerts.readings import READERS
from valkyrie.control.alerts.rulebook import judged, rulebook, watched
from valkyrie.control.alerts.rules import SHIPPED, made
from valkyrie.control.alerts.settings import AlertSettings
from valkyrie.control.cli.alerts import SEVERITIES, WHENS
from valkyrie.control.config import parse_settings
from valkyrie.control.errors import InvalidInput

DROPS: dict[str, Any] = {"when": "drop-rate", "limit": "web", "above": "1000/s"}


def test_figures_are_what_people_write() -> None:
    rule = made("a", {**DROPS, "for": "5m", "clear_below": "500/s", "clear_after": "1h30m"})
    assert rule.terms.above == 1000
    assert rule.terms.clear_below == 500
    assert (rule.terms.lasts, rule.terms.clear_after) == (300, 5400)
    assert made("a", {"when": "drop-share", "above": "12.5%"}).terms.above == 0.125
    assert made("a", {"when": "drop-rate", "above": "36/h"}).terms.above == pytest.approx(0.01)
    assert parse_seconds("0s") == 0
    assert [TEXT["rate"](1500), TEXT["share"](0.2), TEXT["time"](90), TEXT["rate"](0.01)] == [
        "1500/s", "20%", "1m30s", "36/h",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"when": "drop-rate"}, "above"),
        ({**DROPS, "above": "20%"}, "above"),
        ({**DROPS, "above": "-1/s"}, "above"),
        ({**DROPS, "above": "1000/s", "clear_below": "2000/s"}, "clear_below"),
        ({**DROPS, "clear_after": "10ms"}, "clear_after"),
        ({**DROPS, "for": "8d"}, "for"),
        ({**DROPS, "for": "soon"}, "for"),
        ({**DROPS, "nic": "eth0"}, "nic"),
        ({**DROPS, "at_least": "1/s"}, "at_least"),
        ({**DROPS, "tags": {"rule": "x"}}, "tags"),
        ({**DROPS, "tags": {"a": "\x1b"}}, "tags"),
        ({**DROPS, "colour": "red"}, "colour"),
        ({"when": "drop-share", "above": "101%"}, "above"),
        ({"when": "drop-share", "above": "1e9%"}, "above"),
        ({"when": "nic-down", "above": "1/s"}, "above"),
        ({"when": "daemon-restarted", "for": "1m"}, "for"),
        ({"when": "event"}, "event"),
        ({"when": "event", "event": "drop"}, "event"),
        ({"when": "event", "event": "alert"}, "event"),
        ({"when": "event", "event": "lnik"}, "event"),
        ({"when": "weather"}, "when"),
        ({}, "when"),
    ],
)
def test_a_wrong_rule_is_refused_by_the_field(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        made("a", fields)
    assert caught.value.where == where


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "x" * 64, "-a"])
def test_a_wrong_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        made(name, DROPS)


@pytest.mark.parametrize("text", ["20", "%", "200%", "20 percent", "٢%", "9" * 99 + "%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_share(text)


def test_every_kind_is_read_told_and_offered() -> None:
    assert set(READERS) == set(KINDS) == set(get_args(When)) == set(WHENS)
    assert SEVERITIES == ("info", "warning", "error", "critical")


def test_what_is_shipped_needs_no_figures_and_calls_for_what_stops_policing() -> None:
    for rule in SHIPPED:
        assert rule.terms.clear_after >= 1
    assert {rule.name for rule in SHIPPED} >= {"nic-detached", "table-evicting", "store-switched", "sync-lag"}
    assert next(rule for rule in SHIPPED if rule.name == "sync-lag").terms.above == 60


def test_yaml_names_line_and_field_of_a_wrong_rule() -> None:
    raw = b"alerts:\n  rules:\n    - {name: a, when: drop-rate}\n"
    with pytest.raises(InvalidInput) as caught:
        parse_settings(raw, "valkyrie.yaml")
    assert "line 3" in caught.value.where
    assert "above" in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"alerts: {rules: [{name: a, when: nic-down}, {name: a, when: nic-down}]}",
        b"alerts: {group_wait: soon}",
        b"alerts: {repeat: 8d}",
        b"alerts: {most_an_hour: 0}",
        b"alerts: {history: 1}",
        b"alerts: {rules: [{name: a, when: nic-down, password: x}]}",
    ],
)
def test_wrong_settings_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_settings(raw, "valkyrie.yaml")


def test_the_file_counts_before_what_was_added_and_that_before_what_is_shipped() -> None:
    settings = AlertSettings(rules=(made("sync-lag", {"when": "sync-lag", "above": "5m"}),))
    added = [made("sync-lag", {"when": "sync-lag", "above": "9m"}), made("nic-down", {"when": "nic-down"})]
    entries = rulebook(settings, added)
    by_name = {rule.name: rule for rule in watched(entries)}
    assert by_name["sync-lag"].terms.above == 300
    assert len(watched(entries)) == len(by_name) == len(SHIPPED)
    assert [entry.origin for entry in entries if entry.rule.name == "nic-down"] == ["added"]
    (hidden,) = [entry for entry in entries if not entry.counts]
    assert "valkyrie.yaml" in hidden.problem


def test_without_shipped_there_are_only_own_rules() -> None:
    assert rulebook(AlertSettings(shipped=False), []) == []


def test_a_rule_for_what_is_not_there_says_so() -> None:
    rules = [
        made("a", DROPS), made("b", {"when": "drop-rate", "above": "1/s"}),
        made("c", {"when": "nic-down", "nic": "eth9"}),
        made("d", {"when": "credential-old", "credential": "gone"}),
    ]  # fmt: skip
    entries = rulebook(AlertSettings(shipped=False), rules)
    found = {one.rule.name: one.problem for one in judged(entries, {"dns"}, {"eth0"}, {"x"})}
    assert found == {
        "a": "no such limit: web",
        "b": "",
        "c": "no such attached NIC: eth9",
        "d": "no such credential: gone",
    }
    assert not any(one.problem for one in judged(entries, {"web"}, {"eth9"}, {"gone"}))
    assert judged(entries, {"web"}, {"eth9"}, None)[3].problem == "", "credentials that cannot be read"
