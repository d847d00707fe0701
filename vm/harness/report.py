# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its results folder: timings, the console's log, the guest's journal, junit.xml."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import VmError
from harness.lab import Lab

JOURNAL_S = 60.0


def say(text: str) -> None:
    """One line for whoever waits."""
    print(f"vm: {text}", flush=True)  # noqa: T201 the program's output


class Timings:
    """How long each step took, written as they end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: dict[str, float] = {}
        self._began = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.note(name, time.monotonic() - began)
            say(f"{name}: {self._steps[name]:.1f} s")

    def note(self, name: str, seconds: float) -> None:
        """Keep one figure, and the whole run's until here."""
        self._steps[name] = round(seconds, 2)
        self._steps["whole"] = round(time.monotonic() - self._began, 2)
        self._path.write_text(json.dumps(self._steps, indent=2) + "\n")


def keep_journal(lab: Lab, folder: Path) -> None:
    """The guest's journal of all boots of this run, as far as the guest still answers."""
    try:
        lab.check()  # a kernel that has given up is not asked
        done = lab.appliance.run("journalctl", "--no-pager", "-o", "short-monotonic", timeout=JOURNAL_S)
        (folder / "journal.log").write_text(done.stdout + done.stderr)
    except VmError as error:
        (folder / "journal.log").write_text(f"{error}\n")
