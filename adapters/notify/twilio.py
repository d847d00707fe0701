# SPDX-License-Identifier: Apache-2.0
"""Messages as SMS by Twilio, POST /2010-04-01/Accounts/SID/Messages.json."""

from __future__ import annotations

from typing import Any

from valkyrie.adapters.notify.http import HttpSender
from valkyrie.adapters.notify.kinds import TwilioSettings
from valkyrie.adapters.notify.message import Message
from valkyrie.adapters.notify.text import cut, heading, when


def form(message: Message, node: str, settings: TwilioSettings) -> dict[str, str]:
    """The form's fields; the text is cut to `max_chars`, its end first."""
    last = f"\n{node}, {when(message)}"
    text = heading(message) + (f"\n{message.body.strip()}" if message.body.strip() else "")
    room = settings.max_chars - len(last)
    body = cut(text, room) + last if room >= 20 else cut(text, settings.max_chars)
    sender = "MessagingServiceSid" if settings.sender.startswith("MG") else "From"
    return {"To": settings.to, sender: settings.sender, "Body": body}


class Notifier(HttpSender[TwilioSettings]):
    async def deliver(self, message: Message) -> str:
        token = await self.text(self.settings.credential)
        own = self.settings
        answer = await self.post(
            f"{own.url}/2010-04-01/Accounts/{own.account}/Messages.json",
            data=form(message, self.node, own),
            auth=(own.api_key or own.account, token),
        )
        found = answer.json()
        self.judged(answer, self.told(_error(found) or answer.body))
        if not isinstance(found, dict) or not isinstance(found.get("sid"), str):
            raise self.strange(answer, "Twilio")
        return (
            f"answered {answer.status}: {self.told(str(found.get('status')))}, sid {self.told(found['sid'])}"
        )


def _error(found: Any) -> str:
    if not isinstance(found, dict) or "message" not in found:
        return ""
    return f"{found['message']} (code {found.get('code')})"
