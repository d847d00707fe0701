# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ctl import Ctl, ctl_with


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        made.good("limits", "set", "web", "--key", "src", "--rate", "1000/s")
        yield made


def test_one_prefix_gets_its_rate(ctl: Ctl) -> None:
    text = ctl.good("limits", "override", "web", "203.0.113.0/24", "--rate", "5000/s", "--burst", "9")
    assert text == "web: 203.0.113.0/24 has 5000/s\n"
    assert ctl.sent().body == {"overrides": [{"prefix": "203.0.113.0/24", "rate": "5000/s", "burst": "9"}]}


def test_delete_removes_one(ctl: Ctl) -> None:
    ctl.good("limits", "override", "web", "2001:db8::/48", "--rate", "5000/s")
    ctl.good("limits", "override", "web", "2001:db8::/48", "--delete")
    assert ctl.sent().query == {"prefix": "2001:db8::/48"}
    assert ctl.api.overrides["web"] == {}


def test_a_file_is_sent_whole_in_one_request(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "subscribers"
    file.write_text("# plans\n10.0.0.0/24 10/s\n\n10.0.1.0/24 20/s 40  # gold\n")
    before = len(ctl.api.requests)
    assert ctl.good("limits", "override", "web", "--file", str(file)) == "web: 2 overrides set\n"
    assert len(ctl.api.requests) == before + 1
    assert ctl.sent().body["overrides"] == [
        {"prefix": "10.0.0.0/24", "rate": "10/s", "burst": None},
        {"prefix": "10.0.1.0/24", "rate": "20/s", "burst": "40"},
    ]


def test_a_hundred_thousand_overrides_fit_in_one_request(ctl: Ctl) -> None:
    lines = "".join(f"10.{i >> 8 & 255}.{i & 255}.{i >> 16 << 7}/25 {i + 1}/s\n" for i in range(100_000))
    assert "100000 overrides set" in ctl.good("limits", "override", "web", "--file", "-", stdin=lines)
    assert len(ctl.api.overrides["web"]) == 100_000


def test_a_short_line_is_named_and_nothing_is_sent(ctl: Ctl) -> None:
    before = len(ctl.api.requests)
    result = ctl("limits", "override", "web", "--file", "-", stdin="10.0.0.0/24 10/s\n10.0.1.0/24\n")
    assert result.exit_code == 2
    assert "line 2: '10.0.1.0/24' is not an override" in result.stderr
    assert len(ctl.api.requests) == before


def test_the_daemons_complaint_names_the_line_of_the_file(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "subscribers"
    file.write_text("# plans\n10.0.0.0/24 10/s\n\n10.0.1.0/33 20/s\n")
    result = ctl("limits", "override", "web", "--file", str(file))
    assert result.exit_code == 2
    assert f"error: {file} line 4: 10.0.1.0/33 is no prefix\n" in result.stderr
    assert ctl.api.overrides == {}


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ((), "PREFIX"),
        (("10.0.0.0/8",), "--rate"),
        (("10.0.0.0/8", "--rate", "1/s", "--delete"), "--delete"),
        (("10.0.0.0/8", "--file", "-"), "--file"),
    ],
)
def test_half_a_command_says_what_is_missing(ctl: Ctl, args: tuple[str, ...], word: str) -> None:
    result = ctl("limits", "override", "web", *args)
    assert result.exit_code == 2
    assert word in result.stderr


def test_an_unknown_limit_brings_the_name_that_was_meant(ctl: Ctl) -> None:
    result = ctl("limits", "override", "wbe", "10.0.0.0/8", "--rate", "1/s")
    assert result.exit_code == 3
    assert "did you mean web?" in result.stderr


def test_a_file_that_is_not_there_is_named(ctl: Ctl) -> None:
    result = ctl("limits", "override", "web", "--file", "/nowhere/plans")
    assert result.exit_code == 2
    assert "/nowhere/plans" in result.stderr
