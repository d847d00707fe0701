# SPDX-License-Identifier: Apache-2.0
"""A sender of each kind that speaks HTTP, and the answer with which its service takes a message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.fake_http import FakeHttp, answer
from support.notes import SECRET, note, sender
from valkyrie.adapters.notify.message import NotifyError
from valkyrie.adapters.notify.sender import Sender

ACCOUNT = "AC" + "0" * 32
SMS = {"account": ACCOUNT, "credential": "it", "from": "+15550100", "to": "+15550123"}
MAIL = {"credential": "it", "from": "valkyrie@example.net", "to": ["a@example.net", "b@example.net"]}
TAKEN = {
    "webhook": answer(200),
    "slack": answer(200, "ok"),
    "slack-token": answer(200, '{"ok": true, "ts": "1503435956.000247", "channel": "C024BE91L"}'),
    "sendgrid": answer(202, X_Message_Id="abc"),
    "twilio": answer(201, json.dumps({"sid": "SM" + "1" * 32, "status": "queued"})),
}
KINDS = tuple(TAKEN)


def made(kind: str, server: FakeHttp, **more: Any) -> Sender[Any]:
    """A sender of each kind, with the fake in the service's place."""
    if kind == "webhook":
        return sender("webhook", url=f"{server.url}/hook", credential="it", **more)
    if kind == "slack":
        return sender("slack", {"it": f"{server.url}/services/T00/B00/{SECRET}"}, credential="it", **more)
    if kind == "slack-token":
        return sender("slack", credential="it", channel="C024BE91L", url=server.url, **more)
    if kind == "sendgrid":
        return sender("sendgrid", url=server.url, **MAIL, **more)
    return sender("twilio", url=server.url, **SMS, **more)


async def failing(one: Sender[Any]) -> NotifyError:
    try:
        with pytest.raises(NotifyError) as caught:
            await one.send(note())
    finally:
        await one.close()
    return caught.value
