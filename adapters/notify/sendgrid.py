# SPDX-License-Identifier: Apache-2.0
"""Messages as mail by SendGrid, POST /v3/mail/send."""

from __future__ import annotations

from typing import Any

from valkyrie.adapters.notify.http import Answer, HttpSender
from valkyrie.adapters.notify.kinds import SendGridSettings
from valkyrie.adapters.notify.message import Message
from valkyrie.adapters.notify.text import cut, digest, footer, heading

MAX_SUBJECT = 200


def content(message: Message, node: str, settings: SendGridSettings) -> dict[str, Any]:
    """The body. Plain text alone, so that nothing in it is HTML."""
    return {
        "personalizations": [{"to": [{"email": address} for address in settings.to]}],
        "from": {"email": settings.sender, "name": f"Valkyrie {node}"},
        "subject": cut(heading(message), MAX_SUBJECT),
        "content": [{"type": "text/plain", "value": f"{message.body}\n\n{footer(message, node)}\n".lstrip()}],
        "headers": {"X-Valkyrie-Delivery": digest(message, node), "Auto-Submitted": "auto-generated"},
    }


class Notifier(HttpSender[SendGridSettings]):
    async def deliver(self, message: Message) -> str:
        key = await self.text(self.settings.credential)
        answer = await self.post(
            f"{self.settings.url}/v3/mail/send",
            json=content(message, self.node, self.settings),
            headers={"Authorization": f"Bearer {key}"},
        )
        said = self.told(_errors(answer) or answer.body)
        self.judged(answer, said)
        return f"answered {answer.status}, message id {self.told(answer.headers.get('x-message-id', 'none'))}"


def _errors(answer: Answer) -> str:
    """The `message` of each of the answer's errors."""
    found = answer.json()
    if not isinstance(found, dict) or not isinstance(found.get("errors"), list):
        return ""
    texts = [str(one["message"]) for one in found["errors"] if isinstance(one, dict) and "message" in one]
    return "; ".join(texts)
