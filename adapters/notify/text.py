# SPDX-License-Identifier: Apache-2.0
"""A message as text and as JSON, and how text of others is made harmless. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from valkyrie.adapters.notify.message import Message, Severity

MAX_TITLE = 200
MAX_BODY = 8192
MAX_KEY = 256
MAX_TAG = 256
MAX_TAGS = 32
MAX_TOLD = 300  # characters of a service's answer that people are shown
CUT = "\N{HORIZONTAL ELLIPSIS}"


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + CUT


def lines(text: str) -> str:
    """Without control characters but for line ends and tabs."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    """Fit for a header or a log: one line, nothing that steers a terminal, no blanks at the ends."""
    return " ".join(lines(text).split())


def bounded(message: Message) -> Message:
    """The message in the sizes that queues and services take; text that is no Unicode is replaced."""

    def sound(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    tags = [(cut(one_line(sound(k)), 64), cut(one_line(sound(v)), MAX_TAG)) for k, v in message.tags.items()]
    return Message(
        title=cut(one_line(sound(message.title)), MAX_TITLE) or "(no title)",
        body=cut(lines(sound(message.body)), MAX_BODY),
        severity=Severity(message.severity),
        timestamp=float(message.timestamp),
        key=cut(one_line(sound(message.key)), MAX_KEY),
        state=message.state,
        tags=dict(tags[:MAX_TAGS]),
    )


def heading(message: Message) -> str:
    """The first line: severity or `resolved`, and the title."""
    word = "resolved" if message.state == "resolved" else message.severity.name.lower()
    return f"[{word}] {message.title}"


def when(message: Message) -> str:
    return datetime.fromtimestamp(message.timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def footer(message: Message, node: str) -> str:
    """Where, when and about what, in one line."""
    tags = "".join(f", {name}={value}" for name, value in message.tags.items())
    return f"{node}, {when(message)}{tags}"


def as_json(message: Message, node: str) -> dict[str, Any]:
    """The form of webhooks and MQTT, as docs/notifications.md tells it."""
    return {
        "node": node,
        "key": message.key,
        "state": message.state,
        "severity": message.severity.name.lower(),
        "title": message.title,
        "body": message.body,
        "tags": dict(message.tags),
        "timestamp": message.timestamp,
    }


def digest(message: Message, node: str) -> str:
    """The same for every delivery of one message, another for any other."""
    parts = (node, message.key, message.state, repr(message.timestamp), message.title)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def told(text: str | bytes, secrets: Iterable[bytes] = ()) -> str:
    """What a service said, for people: bounded, one line, and without secrets that it quoted."""
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    for secret in secrets:
        if secret:
            raw = raw.replace(secret, b"***")
    return cut(one_line(raw[: 4 * MAX_TOLD].decode("utf-8", "replace")), MAX_TOLD)
