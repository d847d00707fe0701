# SPDX-License-Identifier: Apache-2.0
"""Webhook, Slack, SendGrid and Twilio: bodies as the services document them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from urllib.parse import parse_qs

import pytest

from support.fake_http import fake_http
from support.http_senders import ACCOUNT, SMS, TAKEN, failing, made
from support.notes import HOSTILE, SECRET, note, sender
from valkyrie.adapters.notify.message import Severity


async def test_a_webhook_is_signed_over_its_time_and_body() -> None:
    async with fake_http(TAKEN["webhook"]) as server:
        one = made("webhook", server)
        assert await one.deliver(note()) == "answered 200"
        await one.close()
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["content-type"] == "application/json"
    stamp = request.headers["x-valkyrie-timestamp"]
    wanted = hmac.new(SECRET.encode(), stamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-valkyrie-signature"] == f"sha256={wanted}"
    assert json.loads(request.body) == {
        "node": "edge-1", "key": "drops/web", "state": "firing", "severity": "warning",
        "title": "Drops above 10 %", "body": "limit web drops 12 % of its packets",
        "tags": {"limit": "web"}, "timestamp": 1_700_000_000.0,
    }  # fmt: skip


async def test_a_delivery_id_is_the_same_for_a_message_that_is_sent_again_and_no_other() -> None:
    async with fake_http(TAKEN["webhook"]) as server:
        one = made("webhook", server)
        for message in (note(), note(), note(state="resolved")):
            await one.send(message)
        await one.close()
    first, again, other = (request.headers["x-valkyrie-delivery"] for request in server.requests)
    assert first == again != other


async def test_a_webhook_without_a_key_is_not_signed_and_a_short_key_is_not_used() -> None:
    async with fake_http(TAKEN["webhook"]) as server:
        bare = sender("webhook", url=server.url)
        await bare.send(note())
        await bare.close()
        assert "x-valkyrie-signature" not in server.requests[0].headers
        weak = sender("webhook", {"it": "short"}, url=server.url, credential="it")
        error = await failing(weak)
        assert not error.permanent
        assert "less than 16 bytes" in error.what
        assert len(server.requests) == 1


async def test_a_url_that_is_a_secret_comes_from_a_credential() -> None:
    async with fake_http(TAKEN["webhook"]) as server:
        one = sender("webhook", {"it": f"{server.url}/x?token={SECRET}"}, url_credential="it")
        await one.send(note())
        await one.close()
    assert server.requests[0].path == f"/x?token={SECRET}"
    elsewhere = sender("webhook", {"it": f"http://192.0.2.1/{SECRET}"}, url_credential="it")
    error = await failing(elsewhere)
    assert "must begin with https://" in error.what
    assert SECRET not in str(error)


@pytest.mark.parametrize("kind", ["slack", "slack-token"])
async def test_slack_gets_text_and_blocks_in_which_no_markup_works(kind: str) -> None:
    async with fake_http(TAKEN[kind]) as server:
        one = made(kind, server)
        await one.send(note(title=HOSTILE, body=HOSTILE))
        await one.close()
    (request,) = server.requests
    body = json.loads(request.body)
    assert request.headers["content-type"].startswith("application/json")
    assert "<" not in body["text"]
    assert "&lt;!channel&gt;" in body["text"]
    texts = [block["text"] for block in body["blocks"] if "text" in block] + body["blocks"][-1]["elements"]
    assert [block["type"] for block in body["blocks"]] == ["header", "section", "context"]
    assert all(text["type"] == "plain_text" for text in texts)
    assert len(texts[0]["text"]) <= 150
    if kind == "slack":
        assert request.path == f"/services/T00/B00/{SECRET}"
        assert "channel" not in body
    else:
        assert request.path == "/api/chat.postMessage"
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert body["channel"] == "C024BE91L"


async def test_slack_blocks_stay_within_what_slack_takes() -> None:
    async with fake_http(TAKEN["slack"]) as server:
        one = made("slack", server)
        await one.send(note(title="t" * 500, body="b" * 9000))
        await one.send(note(body=" "))
        await one.close()
    long, empty = (json.loads(request.body)["blocks"] for request in server.requests)
    assert [len(long[0]["text"]["text"]), len(long[1]["text"]["text"])] == [150, 3000]
    assert [block["type"] for block in empty] == ["header", "context"]


async def test_sendgrid_gets_the_documented_body() -> None:
    async with fake_http(TAKEN["sendgrid"]) as server:
        one = made("sendgrid", server)
        assert await one.deliver(note()) == "answered 202, message id abc"
        await one.close()
    (request,) = server.requests
    assert request.path == "/v3/mail/send"
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    body = json.loads(request.body)
    assert body["personalizations"] == [{"to": [{"email": "a@example.net"}, {"email": "b@example.net"}]}]
    assert body["from"] == {"email": "valkyrie@example.net", "name": "Valkyrie edge-1"}
    assert body["subject"] == "[warning] Drops above 10 %"
    (content,) = body["content"]
    assert content["type"] == "text/plain"
    assert content["value"].startswith(
        "limit web drops 12 % of its packets\n\nedge-1, 2023-11-14 22:13:20 UTC"
    )


async def test_twilio_gets_the_documented_form_and_a_text_of_bounded_length() -> None:
    async with fake_http(TAKEN["twilio"]) as server:
        one = made("twilio", server)
        assert "queued" in await one.deliver(note(body="x" * 5000))
        await one.close()
    (request,) = server.requests
    assert request.path == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    basic = base64.b64encode(f"{ACCOUNT}:{SECRET}".encode()).decode()
    assert request.headers["authorization"] == f"Basic {basic}"
    form = parse_qs(request.body.decode(), strict_parsing=True)
    assert (form["To"], form["From"]) == (["+15550123"], ["+15550100"])
    (text,) = form["Body"]
    assert len(text) == 320
    assert text.startswith("[warning] Drops above 10 %\nxxx")
    assert text.endswith("\nedge-1, 2023-11-14 22:13:20 UTC")


async def test_twilio_by_messaging_service_and_api_key() -> None:
    async with fake_http(TAKEN["twilio"]) as server:
        fields = {**SMS, "from": "MG" + "a" * 32, "api_key": "SK" + "b" * 32}
        one = sender("twilio", url=server.url, **fields)
        await one.send(note(severity=Severity.CRITICAL))
        await one.close()
    form = parse_qs(server.requests[0].body.decode())
    assert form["MessagingServiceSid"] == ["MG" + "a" * 32]
    assert "From" not in form
    assert base64.b64decode(server.requests[0].headers["authorization"][6:]).startswith(b"SKbb")
