# SPDX-License-Identifier: Apache-2.0
"""Messages on their way to whoever delivers them: bounded, in order, and never waited for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from valkyrie.adapters.notify.message import Message, Severity
from valkyrie.control.errors import ValkyrieError

log = logging.getLogger(__name__)

MOST = 256
LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.CRITICAL: logging.CRITICAL,
}

Submit = Callable[[Message], "asyncio.Future[bool]"]
"""Must not block. The future is done when the message is on the disk, or False: in memory alone."""


@dataclass(slots=True)
class _Waiting:
    message: Message
    taken: asyncio.Future[bool] | None = None


class Outbox:
    """Every message is in the log. It waits here, to be kept with the alerts, until `submit` has it on the
    disk; without a `submit` the log is all. Of more than MOST the oldest is given up and counted.
    """

    def __init__(self, submit: Submit | None = None) -> None:
        self.submit = submit
        self.lost = 0
        self.problem = ""
        self._waiting: list[_Waiting] = []

    def put(self, messages: Iterable[Message], *, again: bool = False) -> None:
        """`again`: a daemon before this one had them, and they are in the log."""
        for message in messages:
            if not again:
                level = logging.INFO if message.state == "resolved" else LEVELS[message.severity]
                log.log(level, "%s: %s", message.title, message.body.replace("\n", "; "))
            self._waiting.append(_Waiting(message))
        over = len(self._waiting) - MOST
        if over > 0:
            self.lost += over
            del self._waiting[:over]

    async def push(self, seconds: float) -> None:
        """Hand over what was not yet, until one is refused; forget what was taken, of which what is new is
        waited for so long.
        """
        if self.submit is None:
            self._waiting.clear()
            return
        new: list[asyncio.Future[bool]] = []
        try:
            for one in self._waiting:
                if one.taken is None:
                    one.taken = self.submit(one.message)
                    new.append(one.taken)
        except ValkyrieError as error:
            if str(error) != self.problem:
                log.error("alerts cannot be told: %s", error)  # noqa: TRY400 - no bug, so no traceback
            self.problem = str(error)
        else:
            self.problem = ""
        if new:
            await asyncio.wait(new, timeout=seconds)
        self._waiting = [one for one in self._waiting if one.taken is None or not one.taken.done()]

    def waiting(self) -> tuple[Message, ...]:
        """Those that nobody is known to have."""
        return tuple(one.message for one in self._waiting)
