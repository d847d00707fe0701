# SPDX-License-Identifier: Apache-2.0
"""Which rules there are, where from, and which of them cannot work. Pure.

A rule of valkyrie.yaml counts before one added at run time, and that before a shipped one of its name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from valkyrie.control.alerts.rules import ANY, SHIPPED, Rule
from valkyrie.control.alerts.settings import AlertSettings

Origin = Literal["file", "added", "shipped"]


@dataclass(frozen=True, slots=True)
class Entry:
    """`counts`: no other rule of its name comes before it. `problem`: why it watches nothing."""

    rule: Rule
    origin: Origin
    counts: bool = True
    problem: str = ""


def rulebook(settings: AlertSettings, added: Sequence[Rule]) -> list[Entry]:
    """Every rule; of those with one name only the first counts, and replaced shipped ones are left out."""
    entries = [Entry(rule, "file") for rule in settings.rules]
    taken = {entry.rule.name for entry in entries}
    for rule in added:
        hidden = rule.name in taken
        problem = "valkyrie.yaml has a rule of this name, which counts" if hidden else ""
        entries.append(Entry(rule, "added", counts=not hidden, problem=problem))
    taken |= {rule.name for rule in added}
    if settings.shipped:
        entries += [Entry(rule, "shipped") for rule in SHIPPED if rule.name not in taken]
    return entries


def judged(
    entries: Sequence[Entry],
    limits: Collection[str],
    nics: Collection[str],
    credentials: Collection[str] | None,
) -> list[Entry]:
    """With the problem of each rule that names what is not there."""
    there = {"limit": limits, "nic": nics, "credential": credentials}
    words = {"limit": "limit", "nic": "attached NIC", "credential": "credential"}

    def judge(entry: Entry) -> Entry:
        rule = entry.rule
        known = there.get(rule.kind.subject)
        if entry.problem or known is None or rule.which == ANY or rule.which in known:
            return entry
        return replace(entry, problem=f"no such {words[rule.kind.subject]}: {rule.which}")

    return [judge(entry) for entry in entries]


def watched(entries: Sequence[Entry]) -> list[Rule]:
    """The rules that the engine is to look at."""
    return [entry.rule for entry in entries if entry.counts]
