# SPDX-License-Identifier: Apache-2.0
"""Commands by message: signed, fresh, for this node, and never admitted twice."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from valkyrie.control.errors import InvalidInput, PermissionRefused
from valkyrie.control.notify.commands import AHEAD_S, FRESH_S, Judge, envelope, opened

KEY = b"0123456789abcdef"


def command(**changes: Any) -> dict[str, Any]:
    made = {"node": "n", "command": "ban", "id": "1", "time": 1000.0, "nonce": "n" * 16, "arguments": {}}
    return {**made, **changes}


def test_a_command_is_signed_by_the_text_of_its_body() -> None:
    assert opened(envelope(KEY, command()), KEY) == command()
    forged = json.loads(envelope(KEY, command()))
    forged["body"] = forged["body"].replace("ban", "all")
    for payload in (json.dumps(forged).encode(), b"7", b'{"body": 1, "signature": 2}', b"x" * 20000):
        with pytest.raises(PermissionRefused):
            opened(payload, KEY)
    with pytest.raises(PermissionRefused):
        opened(envelope(b"another key, quite", command()), KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "other"}, {"command": "limits-set"}, {"time": 1000.0 - FRESH_S - 1},
        {"time": 1000.0 + AHEAD_S + 1}, {"time": 10**400}, {"time": float("nan")}, {"time": "now"},
        {"time": True}, {"nonce": "short"}, {"id": "a/b"}, {"id": 7}, {"arguments": []}, {"more": 1},
        {"time": 989.0},
    ],
)  # fmt: skip
def test_commands_that_are_stale_misdirected_or_malformed_are_refused(changes: dict[str, Any]) -> None:
    judge = Judge("n", started=990.0)
    with pytest.raises((PermissionRefused, InvalidInput)):
        judge.admit(command(**changes), "ban", 1000.0)
    assert judge.admit(command(), "ban", 1000.0).name == "ban"


def test_no_command_is_admitted_again_by_a_restart_whatever_the_senders_clock() -> None:
    for ahead in (-30.0, -1.0, 0.0, 1.0, AHEAD_S):
        sent = command(time=1000.0 + ahead)
        Judge("n", started=0.0).admit(sent, "ban", 1000.0)
        after = Judge("n", started=1000.0)
        for now in range(1000, 1100):
            with pytest.raises(PermissionRefused):
                after.admit(sent, "ban", float(now))


def test_a_clock_that_jumps_and_comes_back_admits_no_command_again() -> None:
    judge = Judge("n", started=0.0)
    judge.admit(command(), "ban", 1000.0)
    judge.admit(command(time=5000.0, nonce="x" * 16), "ban", 5000.0)
    with pytest.raises(PermissionRefused, match="sent before"):
        judge.admit(command(), "ban", 1010.0)


def test_commands_are_admitted_once_and_so_many_a_second() -> None:
    judge = Judge("n", started=0.0)
    judge.admit(command(), "ban", 1000.0)
    with pytest.raises(PermissionRefused, match="sent before"):
        judge.admit(command(), "ban", 1001.0)
    admitted = 0
    for number in range(100):
        with contextlib.suppress(PermissionRefused):
            judge.admit(command(nonce=f"{number:016}", time=1002.0), "ban", 1002.0)
            admitted += 1
    assert admitted == 20
