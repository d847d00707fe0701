# SPDX-License-Identifier: Apache-2.0
"""Messages and senders for tests of notifications."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from valkyrie.adapters.notify.factory import make_sender
from valkyrie.adapters.notify.kinds import checked_adapter
from valkyrie.adapters.notify.message import Message, Severity
from valkyrie.adapters.notify.sender import Sender
from valkyrie.adapters.secrets import StaticSecrets

SECRET = "s3cr3t-that-nobody-may-see"
HOSTILE = "<!channel> *bold* <https://evil.example|click>\r\nBcc: victim@example.net\x1b[2J & \x00end"


def note(
    title: str = "Drops above 10 %",
    body: str = "limit web drops 12 % of its packets",
    severity: Severity = Severity.WARNING,
    key: str = "drops/web",
    state: Any = "firing",
    at: float = 1_700_000_000.0,
    **tags: str,
) -> Message:
    return Message(title, body, severity, at, key, state, tags or {"limit": "web"})


def sender(kind: str, secrets: dict[str, str] | None = None, /, **fields: Any) -> Sender[Any]:
    settings = checked_adapter({"kind": kind, **{name.rstrip("_"): value for name, value in fields.items()}})
    given: dict[str, bytes | str] = dict(secrets or {"it": SECRET})
    return make_sender("ops", settings, StaticSecrets(given), "edge-1")


async def until(holds: Callable[[], bool], what: str, deadline: float = 20.0) -> None:
    """Look until it holds."""
    end = time.monotonic() + deadline
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline} s")
        await asyncio.sleep(0.01)
