# SPDX-License-Identifier: Apache-2.0
"""Messages as lines on standard error."""

from __future__ import annotations

import sys

from valkyrie.adapters.notify.kinds import ConsoleSettings
from valkyrie.adapters.notify.message import Message
from valkyrie.adapters.notify.sender import Sender
from valkyrie.adapters.notify.text import footer, heading, one_line

LEVELS = (6, 4, 3, 2)  # what systemd takes at a line's begin, by severity


class Notifier(Sender[ConsoleSettings]):
    async def deliver(self, message: Message) -> str:
        text = one_line(f"{heading(message)}: {message.body} ({footer(message, self.node)})")
        print(f"<{LEVELS[message.severity]}>notify: {text}", file=sys.stderr, flush=True)  # noqa: T201
        return "written to standard error"
