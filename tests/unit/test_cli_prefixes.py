# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ctl import Ctl, ctl_with
from valkyrie.control.cli.prefixes import ends_in


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        yield made


@pytest.mark.parametrize("kind", ["exempt", "ban"])
def test_add_list_remove(ctl: Ctl, kind: str) -> None:
    ctl.good(kind, "add", "203.0.113.0/24", "--for", "10m", "--note", "scanner")
    assert ctl.sent().body == {"prefix": "203.0.113.0/24", "for": "10m", "note": "scanner"}
    assert ctl.json(kind, "list")[kind][0]["note"] == "scanner"
    assert ctl.good(kind, "list").splitlines()[1].split()[0::2] == ["203.0.113.0/24", "scanner"]
    ctl.good(kind, "remove", "203.0.113.0/24")
    assert ctl.api.guards[kind] == {}


def test_without_for_it_lasts_until_removed(ctl: Ctl) -> None:
    ctl.good("ban", "add", "2001:db8::/32")
    assert ctl.sent().body["for"] is None
    assert ctl.good("ban", "list").splitlines()[1].split() == ["2001:db8::/32", "never"]


def test_removing_what_is_not_there_brings_what_was_meant(ctl: Ctl) -> None:
    ctl.good("ban", "add", "203.0.113.0/24")
    result = ctl("ban", "remove", "203.0.113.0/25")
    assert result.exit_code == 3
    assert "did you mean 203.0.113.0/24?" in result.stderr


def test_a_wrong_time_is_named_before_anything_is_sent(ctl: Ctl) -> None:
    result = ctl("ban", "add", "203.0.113.0/24", "--for", "soon")
    assert result.exit_code == 2
    assert "--for" in result.stderr
    assert "'soon'" in result.stderr
    assert ctl.api.requests == []


def test_control_codes_in_a_note_do_not_reach_the_terminal(ctl: Ctl) -> None:
    ctl.good("ban", "add", "203.0.113.0/24", "--note", "\x1b[2Jgone\n\r")
    text = ctl.good("ban", "list")
    assert "\x1b" not in text
    assert text.count("\n") == 2


def test_what_is_left_is_told_in_words() -> None:
    assert ends_in(None, 0.0) == "never"
    assert ends_in(700.0, 100.0) == "10m"
    assert ends_in(100.0, 700.0) == "0s"
