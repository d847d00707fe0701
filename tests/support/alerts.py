# SPDX-License-Identifier: Apache-2.0
"""Rules, sights and a run of the engine with a clock of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from valkyrie.control.alerts.engine import State, Transition, step
from valkyrie.control.alerts.notices import Notice
from valkyrie.control.alerts.rules import Rule, made
from valkyrie.control.alerts.sight import Counts, Sight
from valkyrie.control.telemetry.snapshot import NicFigures

WALL = 1_700_000_000.0


def rule(name: str = "r", when: str = "drop-rate", **fields: Any) -> Rule:
    """`lasts` is `for`, which Python keeps for itself."""
    return made(
        name, {"when": when, **{("for" if key == "lasts" else key): one for key, one in fields.items()}}
    )


def nic(
    name: str = "eth0", *, attached: bool = True, present: bool = True, running: bool = True
) -> NicFigures:
    return NicFigures(name, present, running, attached, "native" if attached else "", None)


def counts(**dropped: int) -> dict[str, Counts]:
    """Limits that match twice what they drop."""
    return {name: Counts(2 * count, count, 0) for name, count in dropped.items()}


@dataclass
class Run:
    """The engine, a look after the other."""

    rules: list[Rule]
    state: State = field(default_factory=State)
    now: float = 1000.0
    seen: list[Transition] = field(default_factory=list)

    def look(
        self, after: float = 1.0, notices: Mapping[str, Notice] | None = None, **sight: Any
    ) -> list[tuple[str, str]]:
        """What changed, as (change, subject)."""
        self.now += after
        look = Sight(WALL + self.now, **sight)
        self.state, changes = step(self.rules, self.state, look, notices or {}, self.now)
        self.seen += changes
        return [(one.change, one.alert.subject) for one in changes]

    def firing(self) -> list[str]:
        return sorted(alert.subject for alert in self.state.firing())
