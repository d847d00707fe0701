# SPDX-License-Identifier: Apache-2.0
"""Silences: alerts that fire and are kept in the history, and call nobody for a while."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from valkyrie.control.alerts.engine import Alert
from valkyrie.control.alerts.rules import MAX_TAG_VALUE, NAME, TAG
from valkyrie.control.errors import InvalidInput

MOST_SILENCES = 256
MOST_WHY = 256
ALL = "*"


@dataclass(frozen=True, slots=True)
class Silence:
    """`match` is a rule's name, `tag=value`, or ALL; until `until`, in wall seconds."""

    match: str
    until: float
    why: str
    by: str

    def covers(self, alert: Alert) -> bool:
        if self.match in (ALL, alert.rule):
            return True
        tag, equals, value = self.match.partition("=")
        return bool(equals) and all_tags(alert).get(tag) == value


def checked_match(text: str) -> str:
    """Raises InvalidInput."""
    tag, equals, value = text.partition("=")
    fits = text == ALL or (
        bool(TAG.fullmatch(tag)) and 0 < len(value) <= MAX_TAG_VALUE and value.isprintable()
        if equals
        else bool(NAME.fullmatch(text))
    )  # fmt: skip
    if not fits:
        raise InvalidInput(
            f"{text[:80]!r} names no alerts", "give a rule's name, a tag as limit=web, or * for all", "match"
        )
    return text


def silenced(alert: Alert, silences: Iterable[Silence], wall: float) -> bool:
    return any(one.until > wall and one.covers(alert) for one in silences)


def all_tags(alert: Alert) -> dict[str, str]:
    """The rule's own, the subject's, and those that every alert has."""
    return {
        **alert.tags,
        "rule": alert.rule,
        "when": alert.when,
        "severity": alert.severity.name.lower(),
    }
