# SPDX-License-Identifier: Apache-2.0
"""Where the sync stands with its store; said to people when it changes, and only then."""

from __future__ import annotations

import logging
from typing import Literal

from valkyrie.control.notes import Tell

log = logging.getLogger(__name__)

Phase = Literal["starting", "ok", "away", "refused"]
VERBS = {"away": "is away", "refused": "does not take this appliance's state"}


class Standing:
    """`away`: the store is not reached. `refused`: another writes there, a later version has written, or
    what it holds is damaged. `tell(kind, what)` shows a note to those who follow the events.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.phase: Phase = "starting"
        self.problem = ""
        self.fenced = False  # another owner is why it is refused

    @property
    def ok(self) -> bool:
        return self.phase == "ok"

    def begin(self) -> None:
        """Another store, or another name: what was found before is over."""
        self.phase, self.problem, self.fenced = "starting", "", False

    def now(self, phase: Phase, problem: str, store: str, *, fenced: bool = False) -> None:
        before, self.phase, self.problem, self.fenced = self.phase, phase, problem, fenced
        if before == phase:
            return
        if phase != "ok":
            self.say(f"the store {store} {VERBS[phase]}: {problem}")
        elif before == "starting":
            log.info("state is kept in the store %s", store)
        else:
            self.say(f"the store {store} is back: what it missed is being written")

    def say(self, what: str, level: int = logging.WARNING) -> None:
        log.log(level, "%s", what)
        self._tell("sync", what)
