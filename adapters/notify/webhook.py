# SPDX-License-Identifier: Apache-2.0
"""Messages as JSON by POST, signed so that the receiver knows the sender and refuses replays."""

from __future__ import annotations

import hashlib
import hmac
import json
import time

from valkyrie.adapters.notify.http import HttpSender
from valkyrie.adapters.notify.kinds import WebhookSettings, private_url
from valkyrie.adapters.notify.message import Message, NotifyError
from valkyrie.adapters.notify.text import as_json, digest

TIMESTAMP = "X-Valkyrie-Timestamp"
SIGNATURE = "X-Valkyrie-Signature"
DELIVERY = "X-Valkyrie-Delivery"


def signature(key: bytes, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over `timestamp.body`, so that neither can be changed or used with another."""
    return "sha256=" + hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Notifier(HttpSender[WebhookSettings]):
    async def deliver(self, message: Message) -> str:
        body = json.dumps(as_json(message, self.node), separators=(",", ":")).encode()
        stamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            DELIVERY: digest(message, self.node),
            TIMESTAMP: stamp,
        }
        if self.settings.credential is not None:
            key = await self.key(self.settings.credential)
            headers[SIGNATURE] = signature(key, stamp, body)
        url = await self._url()
        answer = await self.post(url, content=body, headers=headers)
        said = self.told(answer.body)
        self.judged(answer, said)
        return f"answered {answer.status}" + (f": {said}" if said else "")

    async def _url(self) -> str:
        if self.settings.url is not None:
            return self.settings.url
        name = self.settings.url_credential or ""
        found = await self.text(name)
        try:
            private_url(found.partition("?")[0])
        except ValueError as error:
            raise NotifyError(f"credential {name}: the URL {error}") from None
        return found
