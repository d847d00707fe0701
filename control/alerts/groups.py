# SPDX-License-Identifier: Apache-2.0
"""What is told of alerts, and when: the alerts of one rule as one message. Pure.

A message tells how things stand, so what is held back is not lost: the next one has it. From the first
firing alert of a rule to the end of the last, all messages have one key, and the severity and tags of all
that it was about: so whoever a route led the beginning to has the end too. Who was told that an alert fires
is told when it is over, silenced or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from valkyrie.adapters.notify.message import Message, Severity
from valkyrie.control.alerts.engine import Alert, Transition
from valkyrie.control.alerts.rules import ANY
from valkyrie.control.alerts.silences import all_tags

HOUR_S = 3600.0
MOST_LINES = 20  # of each part of a message
MOST_GROUPS = 1024
MOST_TAG = 200  # characters of the values of one tag
MANY = ANY  # a route with any value takes it


@dataclass(frozen=True, slots=True)
class Terms:
    """`repeat` 0: never."""

    group_wait: float
    repeat: float
    most_an_hour: int
    node: str


@dataclass(frozen=True, slots=True)
class Group:
    """Of one rule. `told`: alerts of which people know that they fire, with their words. `brief`: those that
    fired and were over before they were told, `briefer` of them beyond MOST_LINES. `due`: when the next
    message goes; `sent`: when those of the last hour went. `held` messages were put off since; `mark` is what
    the last of them would have told.
    """

    severity: Severity
    tags: Mapping[str, str]
    note: str
    began: float  # wall
    told: Mapping[str, str] = field(default_factory=dict)
    brief: tuple[str, ...] = ()
    briefer: int = 0
    due: float | None = None
    last: float = float("-inf")
    sent: tuple[float, ...] = ()
    held: int = 0
    mark: int = 0

    @property
    def busy(self) -> bool:
        return bool(self.told or self.brief or self.due is not None)


@dataclass(frozen=True, slots=True)
class _News:
    """What a message of a rule would tell: `firing` by subject, `fresh` and `over` among the words."""

    firing: Mapping[str, Alert]
    fresh: Sequence[str]
    over: Sequence[str]
    group: Group

    @property
    def any(self) -> bool:
        return bool(self.fresh or self.over or self.group.brief)

    @property
    def mark(self) -> int:
        brief = len(self.group.brief) + self.group.briefer
        return crc32(repr((sorted(self.fresh), sorted(self.over), brief)).encode()) | 1


def tell(
    groups: Mapping[str, Group],
    firing: Sequence[Alert],
    changes: Sequence[Transition],
    silent: Callable[[Alert], bool],
    terms: Terms,
    now: float,
    wall: float,
) -> tuple[dict[str, Group], list[Message]]:
    """The groups after this step, and the messages that go now."""
    live: dict[str, dict[str, Alert]] = {}
    for alert in firing:
        live.setdefault(alert.rule, {})[alert.subject] = alert
    after = {rule: replace(group, sent=_recent(group.sent, now)) for rule, group in groups.items()}
    _note_brief(after, live, changes, silent, wall)
    messages: list[Message] = []
    for rule in {**after, **live}:
        alerts = live.get(rule, {})
        known = after.get(rule)
        told = {} if known is None else known.told
        heard = {name: one for name, one in alerts.items() if name in told or not silent(one)}
        if known is None and not heard:
            continue
        group = _woken(known, next(iter(heard.values())), wall) if heard else known
        assert group is not None, "something is known, or heard"
        news = _News(
            heard,
            [name for name in heard if name not in told],
            [what for name, what in told.items() if name not in alerts],
            _described(group, heard),
        )
        quiet = all(silent(one) for one in heard.values())
        after[rule], message = _settled(rule, news, terms, now, wall, quiet=quiet)
        if message is not None:
            messages.append(message)
    return {rule: group for rule, group in after.items() if group.busy or group.sent}, messages


def _recent(sent: tuple[float, ...], now: float) -> tuple[float, ...]:
    return tuple(at for at in sent if now - at < HOUR_S)


def _woken(group: Group | None, alert: Alert, wall: float) -> Group:
    """The group, with a beginning of its own if all that it was about is over."""
    if group is None:
        return Group(alert.severity, all_tags(alert), alert.note, wall)
    if group.busy:
        return group
    return replace(group, severity=alert.severity, tags=all_tags(alert), note=alert.note, began=wall)


def _described(group: Group, heard: Mapping[str, Alert]) -> Group:
    """With what these alerts add."""
    if not heard:
        return group
    alerts = list(heard.values())
    severity = max(group.severity, *(alert.severity for alert in alerts))
    return replace(group, severity=severity, tags=joined(group.tags, alerts), note=alerts[0].note)


def joined(tags: Mapping[str, str], alerts: Sequence[Alert]) -> dict[str, str]:
    """The tags with those of the alerts: different values with commas between, MANY if they are too long."""
    found = dict(tags)
    values: dict[str, set[str]] = {}
    for alert in alerts:
        for name, value in all_tags(alert).items():
            values.setdefault(name, set()).add(value)
    for name, more in values.items():
        every = more | {tags.get(name, "")} - {""}
        if len(every) > 1:
            text = ",".join(sorted({part for one in every for part in one.split(",")}))
            found[name] = MANY if MANY in every or len(text) > MOST_TAG else text
        else:
            found[name] = every.pop()
    return found


def _note_brief(
    groups: dict[str, Group],
    live: Mapping[str, Mapping[str, Alert]],
    changes: Sequence[Transition],
    silent: Callable[[Alert], bool],
    wall: float,
) -> None:
    for change in changes:
        alert = change.alert
        if change.change != "resolved" or silent(alert) or alert.subject in live.get(alert.rule, {}):
            continue
        if len(groups) >= MOST_GROUPS and alert.rule not in groups:
            continue
        known = groups.get(alert.rule)
        if known is not None and alert.subject in known.told:
            continue
        group = _woken(known, alert, wall)
        room = len(group.brief) < MOST_LINES
        groups[alert.rule] = replace(
            group,
            severity=max(group.severity, alert.severity),
            tags=joined(group.tags, [alert]),
            brief=(*group.brief, alert.what) if room else group.brief,
            briefer=group.briefer + (not room),
        )


def _settled(
    rule: str, news: _News, terms: Terms, now: float, wall: float, *, quiet: bool
) -> tuple[Group, Message | None]:
    """The group after this step, and its message if one goes now."""
    group = news.group
    again = terms.repeat > 0 and bool(group.told) and now - group.last >= terms.repeat and not quiet
    if not news.any and not again:
        return replace(group, due=None), None
    due = group.due if group.due is not None else now if again else now + terms.group_wait
    if now < due:
        return replace(group, due=due), None
    if len(group.sent) >= terms.most_an_hour:
        mark = news.mark
        held = group.held + (news.any and mark != group.mark)
        return replace(group, due=now + max(1.0, terms.group_wait), held=held, mark=mark), None
    message = _message(rule, news, terms, wall)
    told = {name: alert.what for name, alert in news.firing.items()}
    sent = (*group.sent, now)
    return replace(
        group, told=told, brief=(), briefer=0, due=None, last=now, sent=sent, held=0, mark=0
    ), message


def _message(rule: str, news: _News, terms: Terms, wall: float) -> Message:
    group = news.group
    alerts = news.firing
    fresh = [alerts[name].what for name in news.fresh]
    rest = [alert.what for name, alert in alerts.items() if name not in set(news.fresh)]
    brief = len(group.brief) + group.briefer
    parts = [
        _listed("", fresh, len(fresh)),
        _listed("still firing:" if fresh or news.over else "", rest, len(rest)),
        _listed("resolved:" if alerts else "", news.over, len(news.over)),
        _listed("fired and resolved meanwhile:", group.brief, brief),
        [f"{group.held} earlier messages of this rule were held back."] if group.held else [],
        [group.note] if group.note and alerts else [],
    ]
    return Message(
        title=f"{terms.node}: {_title(rule, news, brief)}",
        body="\n".join(line for part in parts for line in part),
        severity=group.severity,
        timestamp=wall,
        key=f"alert/{terms.node}/{rule}/{group.began:.3f}",
        state="firing" if alerts else "resolved",
        tags={**group.tags, "rule": rule, "node": terms.node},
    )


def _title(rule: str, news: _News, brief: int) -> str:
    alerts = list(news.firing.values())
    if not alerts:
        return f"{rule}: resolved" if news.over else f"{rule}: fired and resolved"
    if len(alerts) == 1:
        return f"{rule}: {alerts[0].what}"
    over = len(news.over) + brief
    return f"{rule}: {len(alerts)} firing" + (f", {over} resolved" if over else "")


def _listed(head: str, lines: Sequence[str], count: int) -> list[str]:
    if not count:
        return []
    shown = list(lines[:MOST_LINES])
    more = [f"and {count - len(shown)} more"] if count > len(shown) else []
    return [*([head] if head else []), *shown, *more]
