# SPDX-License-Identifier: Apache-2.0
"""What is sent to people, and what every sender must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, Protocol

from valkyrie.control.errors import ValkyrieError


class Severity(IntEnum):
    """How much it matters; routes choose by the least that they carry."""

    INFO = 0
    WARNING = 1
    ERROR = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Message:
    """A note for people. `timestamp` is wall seconds; `key` is the same for the firing and the resolved
    message of one alert, and makes a repeated delivery recognisable; `tags` are what routes choose by.
    """

    title: str
    body: str
    severity: Severity
    timestamp: float
    key: str
    state: Literal["firing", "resolved", "note"] = "note"
    tags: Mapping[str, str] = field(default_factory=dict)


class NotifyError(ValkyrieError):
    """A message could not be delivered. `permanent`: trying again cannot help (a refused token, a body
    that is not taken); else `retry_after` seconds is how long the service asks to wait, if it said so.
    """

    exit_code = 11
    code = "notify"

    def __init__(
        self, what: str, hint: str = "", *, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(what, hint)
        self.permanent = permanent
        self.retry_after = retry_after


class Notifier(Protocol):
    """One way to reach people. `send` may be called again with a message that it delivered already."""

    @property
    def name(self) -> str:
        """As the settings name it."""
        ...

    async def send(self, message: Message) -> None:
        """Deliver, within the sender's own timeout. Raises NotifyError."""
        ...

    async def close(self) -> None:
        """Let go of connections. Again: nothing."""
        ...
