# SPDX-License-Identifier: Apache-2.0
import os
import pty
import signal
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from support.ctl import Ctl, command, ctl_with, environment
from support.fake_api import FakeApi
from valkyrie.control.cli.output import Column, Facts, Line, Table, aligned, clean, plain
from valkyrie.control.cli.suggest import did_you_mean
from valkyrie.control.cli.yaml_text import as_yaml

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(-1e9, 1e9).map(lambda f: round(f, 3))
    | TEXT
)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@given(DATA)
def test_yaml_reads_back_as_the_same(data: Any) -> None:
    assert YAML(typ="safe").load(StringIO(as_yaml(data))) == data


@pytest.mark.parametrize(
    "word",
    [
        "1",
        "1e5",
        "0x1f",
        "1_000",
        "12:30:45",
        "2001-01-01",
        "null",
        "~",
        "Yes",
        "on",
        "n",
        ".5",
        "1.0",
        "",
        " a",
        "a ",
    ],
)
def test_words_that_a_reader_could_take_for_something_else_are_quoted(word: str) -> None:
    assert as_yaml({"burst": word}) == f'burst: "{word}"\n'


@pytest.mark.parametrize(
    "word", ["web", "10.0.0.0/8", "1000/s", "proto tcp dport 80,443", "src/24+dport", "x-1.y_2"]
)
def test_the_words_of_a_policy_stay_plain(word: str) -> None:
    assert as_yaml({"x": word}) == f"x: {word}\n"
    for version in ((1, 1), (1, 2)):
        yaml = YAML(typ="safe")
        yaml.version = version
        assert yaml.load(f"x: {word}\n") == {"x": word}


def test_columns_align_and_no_line_ends_in_blanks() -> None:
    rows = [["A", "N"], ["long", "1"], ["x", "1000"]]
    assert aligned(rows, [False, True]) == ["A        N", "long     1", "x     1000"]
    assert aligned([["a", ""]], [False, False]) == ["a"]


@given(st.text())
def test_nothing_that_steers_a_terminal_gets_out(text: str) -> None:
    assert clean(text).isprintable()
    for block in (Line(text), Facts([("a", text)]), Table([Column("A")], [[text]])):
        assert all(line.isprintable() for line in plain(block))


@pytest.mark.parametrize(
    ("word", "sentence"), [("wbe", "did you mean web?"), ("zzz", ""), ("dnsamp", "did you mean dns-amp?")]
)
def test_suggestions_only_when_something_resembles(word: str, sentence: str) -> None:
    assert did_you_mean(word, ["web", "dns-amp"]) == sentence


def on_terminal(ctl: Ctl, *args: str, end: bytes = b"", colour: bool = True) -> tuple[str, int]:
    """What a command shows on a terminal of its own; `end`: interrupted once this has been seen."""
    main, terminal = pty.openpty()
    env = {**environment(ctl.socket), "TERM": "xterm-256color", "NO_COLOR": "" if colour else "1"}
    with subprocess.Popen(
        command(*args), env=env, stdout=terminal, stderr=terminal, stdin=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(main, 65536):
                shown += chunk
                if end and end in shown:
                    process.send_signal(signal.SIGINT)
                    end = b""
        except OSError:  # a terminal without processes reads as EIO
            pass
        finally:
            os.close(main)
        return shown.decode(), process.wait()


def test_a_terminal_gets_coloured_tables_and_markup_is_text(tmp_path: Path) -> None:
    with ctl_with(tmp_path) as ctl:
        ctl.good("limits", "set", "web", "--match", "iface [red]", "--key", "src", "--rate", "1/s")
        shown, code = on_terminal(ctl, "limits", "list")
        plainly, _ = on_terminal(ctl, "limits", "list", colour=False)
    assert code == 0
    assert ("[red]" in shown and "━" in shown) or "─" in shown
    assert "\x1b[31mdrop" in shown
    assert "\x1b[31m" not in plainly


def test_top_redraws_on_a_terminal_until_interrupted(tmp_path: Path) -> None:
    sample = {
        "limits": [
            {
                "name": "web",
                "action": "drop",
                "matched_per_s": 10.0,
                "passed_per_s": 9.0,
                "dropped_per_s": 1.0,
            }
        ],
        "talkers": [{"key": "198.51.100.7", "limit": "web", "dropped": 12345, "would_drop": 0, "error": 0}],
    }
    with ctl_with(tmp_path, FakeApi(answers={"/v1/top": sample})) as ctl:
        shown, code = on_terminal(ctl, "top", end=b"12.3k")
    assert code == 130
    assert "198.51.100.7" in shown
    assert "Traceback" not in shown
