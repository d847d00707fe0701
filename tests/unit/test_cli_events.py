# SPDX-License-Identifier: Apache-2.0
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.ctl import command, ctl_with, environment
from support.fake_api import FakeApi, serving
from valkyrie.control.cli.client import Client
from valkyrie.control.cli.events import follow, line
from valkyrie.control.errors import Unavailable

DROP: dict[str, Any] = {
    "time": 1_700_000_000.25,
    "kind": "drop",
    "reason": "limit",
    "limit": "web",
    "shadow": False,
    "nic": "eth0",
    "src": "2001:db8::7",
    "dst": "192.0.2.1",
    "sport": 40000,
    "dport": 443,
    "protocol": "tcp",
    "length": 60,
}
NOTE = {"time": 1_700_000_000.5, "kind": "link", "what": "eth0: attached again"}


def test_a_drop_is_one_line_with_who_where_and_why() -> None:
    words = line(DROP).text.split()
    ends = ["[2001:db8::7]:40000", ">", "192.0.2.1:443"]
    assert words[1:] == ["drop", "web", *ends, "tcp", "60", "B", "on", "eth0"]


def test_without_ports_and_limit_the_reason_stands() -> None:
    event = {
        **DROP,
        "limit": None,
        "reason": "ban",
        "sport": 0,
        "dport": 0,
        "protocol": "icmp6",
        "shadow": True,
    }
    assert line(event).text.split()[1:7] == ["shadow", "ban", "2001:db8::7", ">", "192.0.2.1", "icmp6"]


def test_a_note_says_what_it_says() -> None:
    assert line(NOTE).text.split()[1:] == ["link", "eth0:", "attached", "again"]


def test_the_daemon_going_away_and_coming_back_is_said(tmp_path: Path) -> None:
    """Two lives of the daemon; it comes back during the second wait."""
    path = tmp_path / "api.sock"
    said: list[str] = []
    waits = 0
    servers = [serving(path, FakeApi(events=[event])) for event in (DROP, NOTE)]

    def wait(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            servers[1].__enter__()

    servers[0].__enter__()
    events = follow(Client(str(path)), said.append, wait)
    assert next(events) == DROP
    servers[0].__exit__(None, None, None)
    assert next(events) == NOTE
    servers[1].__exit__(None, None, None)
    events.close()
    assert waits == 2
    assert said == ["valkyried went away; waiting for it to come back", "valkyried is back"]


def test_no_daemon_to_begin_with_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        next(follow(Client(str(tmp_path / "none")), print, lambda _: None))


@pytest.mark.parametrize("option", [["--json"], ["-o", "json"]])
def test_json_is_a_line_an_event_and_ctrl_c_ends_with_130(tmp_path: Path, option: list[str]) -> None:
    with (
        ctl_with(tmp_path, FakeApi(events=[DROP, NOTE])) as ctl,
        subprocess.Popen(
            command("events", *option),
            env=environment(ctl.socket),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert [json.loads(process.stdout.readline()) for _ in range(2)] == [DROP, NOTE]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    events = [DROP] * 5000
    with (
        ctl_with(tmp_path, FakeApi(events=events)) as ctl,
        subprocess.Popen(
            command("events", "--json"),
            env=environment(ctl.socket),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=10)
        assert "Traceback" not in process.stderr.read()
