# SPDX-License-Identifier: Apache-2.0
"""Messages to Slack, by an incoming webhook or by chat.postMessage."""

from __future__ import annotations

from typing import Any

from valkyrie.adapters.notify.http import Answer, HttpSender
from valkyrie.adapters.notify.kinds import SlackSettings, private_url
from valkyrie.adapters.notify.message import Message, NotifyError
from valkyrie.adapters.notify.text import cut, footer, heading

MAX_HEADER = 150
MAX_SECTION = 3000
MAX_CONTEXT = 2000
PASSING = frozenset(
    ("ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout")
)


def escaped(text: str) -> str:
    """Text in which nothing is a link, a mention or a channel, as Slack's formatting asks for."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def content(message: Message, node: str) -> dict[str, Any]:
    """The body: blocks of plain text, in which no markup works, and `text` for the notice on a phone."""

    def plain(text: str, most: int) -> dict[str, Any]:
        return {"type": "plain_text", "text": cut(text, most), "emoji": False}

    blocks: list[dict[str, Any]] = [{"type": "header", "text": plain(heading(message), MAX_HEADER)}]
    if message.body.strip():
        blocks.append({"type": "section", "text": plain(message.body, MAX_SECTION)})
    blocks.append({"type": "context", "elements": [plain(footer(message, node), MAX_CONTEXT)]})
    return {
        "text": escaped(heading(message)),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


class Notifier(HttpSender[SlackSettings]):
    async def deliver(self, message: Message) -> str:
        secret = await self.text(self.settings.credential)
        body = content(message, self.node)
        if self.settings.channel is None:
            return await self._by_webhook(secret, body)
        return await self._by_token(secret, {"channel": self.settings.channel, **body})

    async def _by_webhook(self, url: str, body: dict[str, Any]) -> str:
        try:
            private_url(url)
        except ValueError as error:
            raise NotifyError(
                f"credential {self.settings.credential} is no incoming webhook: the URL {error}",
                "copy it from the app's page Incoming Webhooks, or set `channel` if it is a token",
            ) from None
        answer = await self.post(url, json=body)
        said = self.told(answer.body)
        self.judged(answer, said)
        if answer.body.strip() != b"ok":
            raise self.strange(answer, "Slack")
        return f"answered {answer.status}: {said}"

    async def _by_token(self, token: str, body: dict[str, Any]) -> str:
        answer = await self.post(
            f"{self.settings.url}/api/chat.postMessage",
            json=body,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=utf-8"},
        )
        found = answer.json()
        said = self.told(_error(found)) or self.told(answer.body)
        self.judged(answer, said)
        if not isinstance(found, dict) or not isinstance(found.get("ok"), bool):
            raise self.strange(answer, "Slack")
        if not found["ok"]:
            raise _refused(answer, said)
        return f"answered {answer.status}: ok, ts {self.told(str(found.get('ts')))}"


def _error(found: Any) -> str:
    return str(found["error"]) if isinstance(found, dict) and "error" in found else ""


def _refused(answer: Answer, said: str) -> NotifyError:
    hint = "see this error of chat.postMessage in Slack's reference"
    return NotifyError(f"answered {answer.status}: {said}", hint, permanent=said not in PASSING)
