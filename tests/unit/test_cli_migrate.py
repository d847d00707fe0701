# SPDX-License-Identifier: Apache-2.0
"""store migrate as people read it, and what it waits for."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from valkyrie.control.cli import store_migrate
from valkyrie.control.cli.main import PROGRAM, cli
from valkyrie.control.cli.output import plain
from valkyrie.control.errors import Unavailable

REPORT: dict[str, Any] = {
    "buckets": 20000, "values": 2000, "documents": 2, "repaired": 0,
    "differences": {"value-missing": 3}, "examples": {"value-missing": ["a", "b\x1b[2J"]},
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "phase": "copying", "source": "redis", "target": "valkey", "doing": "copying", "asked": "",
    "percent": 41.2, "done": 9000, "total": 22000, "keys_a_second": 17900.4, "errors": 1,
    "problem": "", "report": None, "compared": None, "next": "", "change": [], "ended": "",
}  # fmt: skip


def text(**fields: Any) -> str:
    return "\n".join(
        line for block in store_migrate.status_view({**ANSWER, **fields}) for line in plain(block)
    )


def test_status_tells_how_far_it_is_and_what_comes_next() -> None:
    shown = text()
    assert "copying: redis decides; the other is told and filled" in shown
    assert "copying 41 %, 9000 of 22000 keys, 17900 keys/s" in shown
    assert "wait until this is done" in shown
    assert "valkyrie-ctl store migrate validate" in text(doing="", next="validate")


def test_status_tells_differences_by_kind_without_control_codes() -> None:
    shown = text(report=REPORT, next="validate")
    assert "20000 buckets, 2000 values, 2 documents: 3 differ" in shown
    assert "value-missing" in shown
    assert "\x1b" not in shown


def test_status_reminds_of_the_settings_until_they_are_changed() -> None:
    assert "mode: valkey" in text(phase="cutover", next="cleanup", change=["store:", "  mode: valkey"])
    assert "valkyrie.yaml" not in text(phase="cutover", next="cleanup")


class Asked:
    """A client that gives these answers in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def get(self, path: str) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_it_is_waited_for_over_a_restart_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_migrate, "POLL_S", 0.0)
    done = {**ANSWER, "next": "validate"}
    client: Any = Asked(ANSWER, Unavailable("away"), done)
    assert store_migrate.follow(client, ANSWER, wait=True) == done
    assert store_migrate.follow(client, ANSWER, wait=False) == ANSWER


@pytest.mark.parametrize("step", ["cleanup", "abort"])
def test_nothing_is_deleted_without_a_yes(step: str) -> None:
    done = CliRunner().invoke(cli, ["--socket", "/nowhere", "store", "migrate", step], prog_name=PROGRAM)
    assert done.exit_code == 2
    assert "--yes" in done.output
