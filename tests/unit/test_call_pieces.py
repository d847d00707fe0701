# SPDX-License-Identifier: Apache-2.0
"""A call for many keys whose program stops half way, or is told to ask again, while the ruleset changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from valkyrie.control import abi
from valkyrie.control.dataplane import call
from valkyrie.control.errors import Unavailable

HEADER = call.declared(1, 0)
ANSWERED_AT = call.POINT_AT


class ScriptedRun:
    """Plays the program: of each run what it told, and a verdict for each entry that it answered."""

    def __init__(self, script: Sequence[tuple[int, Sequence[int]]]) -> None:
        self.packet = bytearray(8192)
        self._script = list(script)

    def go(self, length: int) -> None:
        del length
        told, verdicts = self._script.pop(0)
        answers = np.zeros(len(verdicts), abi.CALL_ANSWER)
        answers["verdict"] = verdicts
        self.packet[call.HEAD : call.HEAD + answers.nbytes] = answers.tobytes()
        self.packet[call.TOLD_AT], self.packet[ANSWERED_AT] = told, len(verdicts)

    def close(self) -> None:
        return


class Caller(call.Caller):
    def __init__(self, *script: tuple[int, Sequence[int]]) -> None:
        self.pin_dir = Path()
        self._run = ScriptedRun(script)  # type: ignore[assignment]


def entries(count: int) -> call.Array:
    return np.zeros(count, abi.CALL_ENTRY)


TAKEN, CONTENDED = abi.CALL_TAKEN, abi.CALL_CONTENDED


def test_a_program_that_stops_half_way_is_asked_for_the_rest() -> None:
    caller = Caller((abi.CALL_DONE, [TAKEN] * 8), (abi.CALL_DONE, [TAKEN] * 2))
    assert caller.consume(HEADER, entries(10))["verdict"].tolist() == [TAKEN] * 10


def test_what_was_taken_before_the_ruleset_changed_is_not_asked_for_again() -> None:
    caller = Caller((abi.CALL_DONE, [TAKEN] * 8), (abi.CALL_STALE, []))
    with pytest.raises(call.Stale) as caught:
        caller.consume(HEADER, entries(10))
    assert caught.value.args[0]["verdict"].tolist() == [TAKEN] * 8


def test_a_change_while_contended_entries_are_asked_again_is_no_stale_first_part() -> None:
    caller = Caller((abi.CALL_DONE, [CONTENDED, TAKEN]), (abi.CALL_STALE, []))
    with pytest.raises(Unavailable, match="the ruleset changed"):
        caller.consume(HEADER, entries(2))
    assert caller.begun  # so that who asked is told that tokens may be gone
