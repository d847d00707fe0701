# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from support.ctl import Ctl, ctl_with
from support.fake_api import RefusedError
from valkyrie.control.cli.yaml_text import as_yaml

POLICY = """\
limits:
  - name: web
    match: proto tcp dport 80
    key: src
    rate: 1000/s
  - name: dns
    key: global
    rate: fast
exempt: []
"""


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        yield made


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


def test_apply_sends_the_document_of_the_file(ctl: Ctl, policy: Path) -> None:
    ctl.good("limits", "apply", "-f", str(policy), "--dry-run")
    assert ctl.sent().path == "/v1/diff"
    assert ctl.sent().body == {"document": YAML(typ="safe").load(POLICY)}


def test_a_dash_reads_standard_input_and_json_is_read_too(ctl: Ctl) -> None:
    ctl.good("limits", "apply", "-f", "-", stdin='{"limits": []}')
    assert ctl.sent().path == "/v1/apply"
    assert ctl.sent().body == {"document": {"limits": []}}


def test_apply_shows_the_diff(ctl: Ctl, policy: Path) -> None:
    ctl.api.answers["/v1/apply"] = {
        "diff": [
            {"change": "added", "kind": "limit", "name": "web", "fields": {}},
            {"change": "changed", "kind": "limit", "name": "dns", "fields": {"rate": ["1/s", "2/s"]}},
            {"change": "removed", "kind": "ban", "name": "192.0.2.0/24", "fields": {}},
        ],
        "applied": True,
    }
    assert ctl.good("limits", "apply", "-f", str(policy)).splitlines() == [
        "+ limit web",
        "~ limit dns",
        "    rate: 1/s -> 2/s",
        "- ban 192.0.2.0/24",
        "applied: 1 added, 1 removed, 1 changed",
    ]
    ctl.api.answers["/v1/diff"] = ctl.api.answers["/v1/apply"]
    dry = ctl.good("limits", "apply", "-f", str(policy), "--dry-run")
    assert dry.endswith("would change: 1 added, 1 removed, 1 changed (dry run, nothing was changed)\n")


def test_a_burst_may_be_written_as_a_number(ctl: Ctl) -> None:
    ctl.good("limits", "apply", "-f", "-", stdin="limits:\n  - {name: 7, key: src, rate: 1/s, burst: 2000}\n")
    (limit,) = ctl.sent().body["document"]["limits"]
    assert limit == {"name": "7", "key": "src", "rate": "1/s", "burst": "2000"}


def test_nothing_to_change_is_said(ctl: Ctl, policy: Path) -> None:
    assert ctl.good("limits", "apply", "-f", str(policy)) == "nothing to change\n"


@pytest.mark.parametrize(
    ("field", "line"), [("limits[1].rate", 8), ("limits[0].match", 3), ("limits[1].burst", 6), ("exempt", 9)]
)
def test_the_daemons_complaint_names_the_line_of_the_file(
    ctl: Ctl, policy: Path, field: str, line: int
) -> None:
    ctl.api.refuse = RefusedError(400, "invalid", "rate 'fast' has no period", "write 1000/s", field)
    result = ctl("limits", "apply", "-f", str(policy))
    assert result.exit_code == 2
    assert f"error: {policy} line {line}, {field}: rate 'fast'" in result.stderr


def test_a_syntax_error_names_line_and_column_and_nothing_is_sent(ctl: Ctl) -> None:
    result = ctl("limits", "apply", "-f", "-", stdin="limits:\n  - name: web\n   key: src\n")
    assert result.exit_code == 2
    assert "line 3, column 4" in result.stderr
    assert ctl.api.requests == []


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "{", "\x00", "a: &x [*x, *y]\n"])
def test_what_is_no_policy_is_refused_here(ctl: Ctl, text: str) -> None:
    result = ctl("limits", "apply", "-f", "-", stdin=text)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert ctl.api.requests == []


def test_bytes_that_are_no_text_are_refused(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "policy"
    file.write_bytes(b"limits: \xff\n")
    result = ctl("limits", "apply", "-f", str(file))
    assert result.exit_code == 2
    assert "not UTF-8 text" in result.stderr


def test_export_can_be_applied_again(ctl: Ctl) -> None:
    ctl.good(
        "limits", "set", "web", "--match", "proto tcp", "--key", "src", "--rate", "1/s", "--burst", "2000"
    )
    document = json.loads(ctl.good("limits", "export", "-o", "json"))
    text = ctl.good("limits", "export")
    ctl.good("limits", "apply", "-f", "-", stdin=text)
    assert ctl.sent().body["document"] == document
    assert document["limits"][0]["burst"] == "2000"


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"limits": ' + "[" * 100_000, "nested too deeply"),
        ("limits: &a [*a]", "nested too deeply"),
        (BOMB, "holds more than 4000000 values"),
    ],
    ids=["yaml", "json", "itself", "aliases"],
)
def test_a_policy_that_would_not_end_is_refused(ctl: Ctl, text: str, said: str) -> None:
    result = ctl("limits", "apply", "-f", "-", stdin=text)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert not ctl.api.requests


@pytest.mark.parametrize("command", [("limits", "apply", "-f"), ("limits", "override", "web", "--file")])
def test_a_file_that_is_no_text_is_refused(ctl: Ctl, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "noise").write_bytes(b"\xd1\xff\0")
    result = ctl(*command, str(tmp_path / "noise"))
    assert result.exit_code == 2, result.output
    assert "not UTF-8 text" in result.output


def test_of_yaml_that_takes_a_while_it_is_said_so(ctl: Ctl) -> None:
    match = "dport 80" + " " * 1024 * 1024
    limit = {"name": "web", "key": "src", "rate": "1/s", "match": match}
    other_form = f"limits: [{{name: web, key: src, rate: 1/s, match: '{match}'}}]\n"
    said = {}
    for text in (other_form, as_yaml({"limits": [limit]}), json.dumps({"limits": [limit]})):
        result = ctl("limits", "apply", "-f", "-", stdin=text)
        assert (result.exit_code, ctl.sent().body) == (0, {"document": {"limits": [limit]}})
        said[text] = result.stderr
    assert ["takes a while" in one for one in said.values()] == [True, False, False]
