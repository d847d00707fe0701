# SPDX-License-Identifier: Apache-2.0
"""What outlives the daemon, as JSON text and back: alerts that fire, and what people were told of them.

Times of the engine's clock are moved so that the time between two daemons counts as one clock's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from valkyrie.adapters.notify.message import Message, Severity
from valkyrie.control.alerts.engine import MOST_ALERTS, Alert, Id
from valkyrie.control.alerts.groups import MOST_GROUPS, Group

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """`ended`: the daemon that wrote this said that it ends."""

    alerts: Mapping[Id, Alert] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    ended: bool = False


def text_of(kept: Kept, waiting: Sequence[Message], now: float, wall: float) -> str:
    return json.dumps(
        {
            "format": FORMAT,
            "now": now,
            "wall": wall,
            "ended": kept.ended,
            "waiting": [{**asdict(message), "tags": dict(message.tags)} for message in waiting],
            "alerts": [asdict(alert) for alert in kept.alerts.values() if alert.fired is not None],
            "groups": {
                rule: {**asdict(group), "last": group.last if group.last > float("-inf") else None}
                for rule, group in kept.groups.items()
            },
        },
        separators=(",", ":"),
    )


def kept_in(text: str, now: float, wall: float) -> tuple[Kept, list[Message]]:
    """With the messages that waited. Raises ValueError, TypeError, KeyError or AttributeError for what
    text_of did not write.
    """
    found = json.loads(text)
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']}")
    shift = now - found["now"] - max(0.0, wall - found["wall"])
    alerts = [_alert(one, shift) for one in found["alerts"][:MOST_ALERTS]]
    groups = {rule: _group(one, shift) for rule, one in list(found["groups"].items())[:MOST_GROUPS]}
    waiting = [Message(**{**one, "severity": Severity(one["severity"])}) for one in found["waiting"]]
    return Kept({alert.id: alert for alert in alerts}, groups, bool(found["ended"])), waiting


def _alert(fields: Mapping[str, Any], shift: float) -> Alert:
    alert = Alert(**{**fields, "severity": Severity(fields["severity"])})
    return replace(alert, began=alert.began + shift, low=None)


def _group(fields: Mapping[str, Any], shift: float) -> Group:
    group = Group(
        **{
            **fields,
            "severity": Severity(fields["severity"]),
            "brief": tuple(fields["brief"]),
            "last": float("-inf") if fields["last"] is None else fields["last"],
        }
    )
    return replace(
        group,
        due=None if group.due is None else group.due + shift,
        last=group.last + shift,
        sent=tuple(at + shift for at in group.sent),
    )
