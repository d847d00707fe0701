# SPDX-License-Identifier: Apache-2.0
"""Which alerts fire. Pure: times are passed in, `now` of a clock that nobody sets, `wall` for people.

An alert is one subject of one rule. It waits while its value is above the rule's for `for`, fires, and is
over when the value was at or below `clear_below` for `clear_after`. What cannot be known changes nothing. A
subject that is gone counts as one that is well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from valkyrie.adapters.notify.message import Severity
from valkyrie.control.alerts.kinds import When
from valkyrie.control.alerts.notices import Notice
from valkyrie.control.alerts.readings import Reading, Window, read
from valkyrie.control.alerts.rules import Rule
from valkyrie.control.alerts.sight import Sight

MOST_ALERTS = 1024  # that wait or fire at once
Id = tuple[str, str]  # rule and subject
Change = Literal["firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Alert:
    """`began` and `low` are times of the engine: since when it is above, since when it is not any more.
    `value` is the last known, `peak` the largest; `fired` in wall seconds, None while it waits.
    """

    rule: str
    subject: str
    when: When
    severity: Severity
    began: float
    value: float
    peak: float
    what: str
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    fired: float | None = None
    low: float | None = None

    @property
    def id(self) -> Id:
        return (self.rule, self.subject)


@dataclass(frozen=True, slots=True)
class Transition:
    """`why` is empty but for what did not end by its value."""

    change: Change
    alert: Alert
    wall: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """`crowded`: alerts that found no room in the last step. They get it when there is some."""

    alerts: Mapping[Id, Alert] = field(default_factory=dict)
    window: Window = field(default_factory=Window)
    crowded: int = 0

    def firing(self) -> list[Alert]:
        return [alert for alert in self.alerts.values() if alert.fired is not None]


def step(
    rules: Sequence[Rule], state: State, sight: Sight, notices: Mapping[str, Notice], now: float
) -> tuple[State, tuple[Transition, ...]]:
    """One look. The rules have names of their own."""
    seen = replace(sight, events={kind: notice.text() for kind, notice in notices.items()})
    window = state.window.seen(now, seen)
    watching = {rule.name: rule for rule in rules if rule.enabled}
    alerts: dict[Id, Alert] = {}
    changes: list[Transition] = []
    known: dict[str, list[Id]] = {}
    for alert in state.alerts.values():
        rule = watching.get(alert.rule)
        if rule is not None and rule.when == alert.when:
            alerts[alert.id] = alert
            known.setdefault(alert.rule, []).append(alert.id)
        elif alert.fired is not None:
            changes.append(Transition("resolved", alert, sight.wall, "the rule was taken away"))
    crowded = 0
    for rule in watching.values():
        crowded += _judge(rule, window, alerts, known.get(rule.name, ()), changes, now)
    return State(alerts, window, crowded), tuple(changes)


def _judge(
    rule: Rule, window: Window, alerts: dict[Id, Alert], known: Sequence[Id], changes: list[Transition],
    now: float,
) -> int:  # fmt: skip
    """Bring the alerts of one rule up to date, of which these are `known`; how many found no room."""
    readings = read(rule, window)
    if readings is None:
        return 0
    wall = window.sights[-1][1].wall
    there, crowded = set(), 0
    for reading in readings:
        where = (rule.name, reading.subject)
        there.add(where)
        if reading.value is None:
            continue
        before = alerts.get(where)
        if before is None and reading.value > rule.terms.above and len(alerts) >= MOST_ALERTS:
            crowded += 1
            continue
        _put(alerts, changes, where, before, _advanced(rule, before, reading, now, wall), wall)
    for where in known:
        if where not in there:
            alert = alerts[where]
            reading = Reading(alert.subject, 0.0, lambda: "")
            _put(alerts, changes, where, alert, _advanced(rule, alert, reading, now, wall), wall, "gone")
    return crowded


def _put(
    alerts: dict[Id, Alert], changes: list[Transition], where: Id, before: Alert | None, after: Alert | None,
    wall: float, why: str = "",
) -> None:  # fmt: skip
    if after is not None:
        alerts[where] = after
        if after.fired is not None and (before is None or before.fired is None):
            changes.append(Transition("firing", after, wall))
    elif before is not None:
        del alerts[where]
        if before.fired is not None:
            changes.append(Transition("resolved", before, wall, why))


def _advanced(rule: Rule, before: Alert | None, reading: Reading, now: float, wall: float) -> Alert | None:
    """The alert after this reading; None: there is none, or none any more."""
    terms, value = rule.terms, reading.value or 0.0
    if before is None:
        if value <= terms.above:
            return None
        tags = {**rule.tags, **reading.tags}
        before = Alert(
            rule.name, reading.subject, rule.when, rule.level, now, value, value, reading.what(), tags
        )
    if before.fired is None:
        if value <= terms.above:
            return None
        fired = wall if now - before.began >= terms.lasts else None
        return _updated(before, rule, reading, value, fired)
    if value > terms.clear_below:
        return _updated(before, rule, reading, value, before.fired)
    low = now if before.low is None else before.low
    return None if now - low >= terms.clear_after else replace(before, low=low, value=value)


def _updated(alert: Alert, rule: Rule, reading: Reading, value: float, fired: float | None) -> Alert:
    return replace(
        alert,
        severity=rule.level,
        note=rule.note,
        value=value,
        peak=max(alert.peak, value),
        what=reading.what(),
        fired=fired,
        low=None,
    )
