# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from support.ctl import Ctl, ctl_with
from support.fake_api import RefusedError

WEB = ("limits", "set", "web", "--match", "proto tcp dport 80,443", "--key", "src/32", "--rate", "1000/s")


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        yield made


def test_set_sends_the_limit_as_typed(ctl: Ctl) -> None:
    text = ctl.good(*WEB, "--burst", "2000")
    request = ctl.sent()
    assert (request.method, request.path) == ("PUT", "/v1/limits/web")
    assert request.body == {
        "match": "proto tcp dport 80,443",
        "key": "src/32",
        "rate": "1000/s",
        "burst": "2000",
        "action": "drop",
        "ban_for": None,
    }
    assert text == "web: 1000/s per src/32, burst 2000, drop; matches proto tcp dport 80,443\n"


@pytest.mark.parametrize(
    ("options", "action", "ban_for"),
    [(["--shadow"], "shadow", None), (["--ban", "10m"], "ban", "10m"), ([], "drop", None)],
)
def test_the_action_follows_the_options(
    ctl: Ctl, options: list[str], action: str, ban_for: str | None
) -> None:
    ctl.good(*WEB, *options)
    assert (ctl.sent().body["action"], ctl.sent().body["ban_for"]) == (action, ban_for)


def test_measure_is_sent_only_when_given(ctl: Ctl) -> None:
    ctl.good(*WEB)
    assert "measure" not in ctl.sent().body
    ctl.good("limits", "set", "b", "--key", "global", "--rate", "1mbit/s", "--measure", "frame")
    assert ctl.sent().body["measure"] == "frame"


def test_shadow_and_ban_together_are_refused_before_anything_is_sent(ctl: Ctl) -> None:
    result = ctl(*WEB, "--shadow", "--ban", "10m")
    assert result.exit_code == 2
    assert "--shadow" in result.stderr
    assert "--ban" in result.stderr
    assert ctl.api.requests == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("limits", "set", "web", "--rate", "1/s"), ["--key"]),
        (("limits", "set", "web", "--key", "src"), ["--rate"]),
        (("limits", "set", "web", "--key", "src", "--rate", "1000"), ["--rate", "'1000'", "1000/s"]),
        (("limits", "set", "web", "--key", "src", "--rate", "5mbps/s"), ["--rate", "mbps", "mbit"]),
        ((*WEB, "--ban", "10x"), ["--ban", "'x'", "units are"]),
        ((*WEB, "--shadw"), ["--shadw", "--shadow"]),
        ((*WEB, "--measure", "bits"), ["bits", "packets", "frame"]),
        (("limit", "list"), ["'limit'", "limits"]),
        (("limits", "lst"), ["'lst'", "list"]),
        (("frobnicate",), ["'frobnicate'", "there are: attach"]),
    ],
)
def test_wrong_input_names_the_word_and_what_would_be_right(
    ctl: Ctl, args: tuple[str, ...], words: list[str]
) -> None:
    result = ctl(*args)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr
    assert ctl.api.requests == []


def test_what_the_daemon_refuses_is_told_with_word_and_hint(ctl: Ctl) -> None:
    ctl.api.refuse = RefusedError(400, "invalid", "unknown word 'prto'", "did you mean proto?", "match")
    result = ctl("limits", "set", "web", "--match", "prto tcp", "--key", "src", "--rate", "1/s")
    assert result.exit_code == 2
    assert result.stderr == "error: match: unknown word 'prto'\nhint: did you mean proto?\n"
    assert ctl.api.limits == {}


def test_list_is_aligned_text_without_a_terminal(ctl: Ctl) -> None:
    ctl.good(*WEB, "--burst", "2000")
    ctl.api.limits["web"]["counters"].update(matched=123456, passed=120000, dropped=3456)
    header, row = ctl.good("limits", "list").splitlines()
    assert header == "NAME  MATCH                   KEY       RATE  BURST  ACTION  MATCHED  PASSED  DROPPED"
    assert row == "web   proto tcp dport 80,443  src/32  1000/s   2000  drop     123.5k    120k     3456"


def test_a_shadow_limit_lists_what_it_would_have_dropped(ctl: Ctl) -> None:
    ctl.good(*WEB, "--shadow")
    ctl.api.limits["web"]["counters"].update(shadow_dropped=77)
    assert ctl.good("limits", "list").split()[-1] == "77"


def test_an_empty_list_says_what_that_means(ctl: Ctl) -> None:
    assert ctl.good("limits", "list") == "no limits: every packet passes\n"


def test_json_and_yaml_are_what_the_api_said(ctl: Ctl) -> None:
    ctl.good(*WEB)
    answer = {"limits": [ctl.api.limits["web"]]}
    assert ctl.json("limits", "list") == answer
    assert YAML(typ="safe").load(ctl.good("limits", "list", "-o", "yaml")) == answer


def test_show_brings_the_overrides(ctl: Ctl) -> None:
    ctl.good(*WEB)
    ctl.good("limits", "override", "web", "203.0.113.0/24", "--rate", "5000/s")
    text = ctl.good("limits", "show", "web")
    assert "matched bytes" in text
    assert text.splitlines()[-1].split() == ["203.0.113.0/24", "5000/s"]
    assert ctl.json("limits", "show", "web")["overrides"] == [
        {"prefix": "203.0.113.0/24", "rate": "5000/s", "burst": None}
    ]


@pytest.mark.parametrize("verb", ["show", "delete"])
def test_an_unknown_limit_brings_the_name_that_was_meant(ctl: Ctl, verb: str) -> None:
    ctl.good("limits", "set", "dns-amp", "--key", "global", "--rate", "50mbit/s")
    result = ctl("limits", verb, "dns-apm")
    assert result.exit_code == 3
    assert "'dns-apm'" in result.stderr
    assert "did you mean dns-amp?" in result.stderr
    assert "dns-amp" in ctl.api.limits


def test_a_match_of_very_many_prefixes_does_not_fill_the_screen(ctl: Ctl) -> None:
    match = "src " + ",".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(5000))
    said = ctl.good("limits", "set", "many", "--match", match, "--key", "src", "--rate", "1/s")
    assert max(map(len, (said, *ctl.good("limits", "list").splitlines()))) < 300
    assert match in ctl.good("limits", "show", "many")
    assert json.loads(ctl.good("limits", "list", "-o", "json"))["limits"][0]["match"] == match


def test_delete_deletes(ctl: Ctl) -> None:
    ctl.good(*WEB)
    assert ctl.good("limits", "delete", "web") == "web: deleted\n"
    assert ctl.api.limits == {}


def test_explain_shows_what_each_limit_would_say(ctl: Ctl) -> None:
    full = {"tokens_left": 9, "burst": 9, "retry_after_ns": 0}
    empty = {"tokens_left": 0, "burst": 10, "retry_after_ns": 1_500_000_000}
    ctl.api.answers["/v1/explain"] = {
        "verdict": "drop",
        "reason": "limit",
        "passes_on": [],
        "limits": [
            {"name": "a", "action": "drop", "matched": False, "conforms": True, "leased": [], **full},
            {"name": "b", "action": "shadow", "matched": True, "conforms": False, "leased": [], **empty},
        ],
    }
    lines = ctl.good("limits", "explain", "src", "198.51.100.7", "proto", "tcp", "syn").splitlines()
    assert ctl.sent().body == {"packet": "src 198.51.100.7 proto tcp syn"}
    assert lines[0] == "drop: limit"
    assert lines[-2].split() == ["a", "drop", "no"]
    assert lines[-1].split() == ["b", "shadow", "yes", "no", "0", "10", "1s500ms"]
    told = ctl.api.answers["/v1/explain"]
    told["passes_on"] = [1, 3]
    told["limits"][1]["leased"] = [{"cpu": cpu, "tokens": cpu, "enough": cpu > 0} for cpu in (0, 1, 3)]
    lines = ctl.good("limits", "explain", "src", "198.51.100.7").splitlines()
    assert lines[1] == "passes on CPU 1, 3, which holds tokens that were bought ahead"
    assert "on CPU 1, 3" in lines[-1]


@pytest.mark.parametrize("name", ["", ".", "..", "../status?x=1", "a/b"])
def test_a_name_that_is_no_part_of_a_path_is_refused_before_it_is_sent(ctl: Ctl, name: str) -> None:
    result = ctl("limits", "set", name, "--key", "src", "--rate", "1/s")
    assert result.exit_code == 2, result.output
    assert f"{name!r} is no name" in result.output
    assert not ctl.api.requests


def test_a_name_cannot_become_a_query(ctl: Ctl) -> None:
    assert ctl("limits", "delete", "web?x=1").exit_code == 3
    assert ctl.api.requests[0].path == "/v1/limits/web%3Fx%3D1"
