# SPDX-License-Identifier: Apache-2.0
"""Webhook, Slack, SendGrid and Twilio: bodies as the services document them, and what failures become."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import logging
import resource
import socket
import ssl
import threading
import zlib
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from support.certs import make_certs
from support.fake_http import FakeHttp, answer, fake_http
from support.notes import HOSTILE, SECRET, note, sender
from valkyrie.adapters.notify.http import MAX_RETRY_AFTER, wait_asked
from valkyrie.adapters.notify.lookup import Addresses, Lookup
from valkyrie.adapters.notify.message import NotifyError, Severity
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (500, False),
        (502, False),
        (429, False),
        (408, False),
        (400, True),
        (401, True),
        (404, True),
        (302, True),
    ],
)
async def test_statuses_are_final_or_not(kind: str, status: int, permanent: bool) -> None:
    async with fake_http(answer(status, "so it is")) as server:
        error = await failing(made(kind, server))
    assert error.permanent is permanent
    assert f"answered {status}: so it is" in error.what


@pytest.mark.parametrize("kind", KINDS)
async def test_who_asks_to_wait_is_heard(kind: str) -> None:
    async with fake_http(answer(429, "slow down", Retry_After="7")) as server:
        error = await failing(made(kind, server))
    assert (error.permanent, error.retry_after) == (False, 7.0)


def test_retry_after_in_all_its_forms_is_bounded() -> None:
    now = 1_700_000_000.0
    asked = {
        "5": 5.0, "0": 0.0, "999999999999999999": MAX_RETRY_AFTER, formatdate(now + 90, usegmt=True): 90.0,
        formatdate(now - 90, usegmt=True): 0.0, "-1": None, "soon": None, "": None, "1e9": None,
        "٣": None, "Wed, 99 Foo 2023 00:00:00 GMT": None,
    }  # fmt: skip
    for text, wanted in asked.items():
        assert wait_asked({"retry-after": text}, now) == wanted, text
    assert wait_asked({"x-ratelimit-reset": str(int(now) + 12)}, now) == 12.0
    assert wait_asked({}, now) is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("webhook", "sendgrid")])
@pytest.mark.parametrize(
    "body", [b"<html>log in to the hotel's net</html>", b"\xff\xfe{", b"[" * 60000, b"[]", b"7"]
)
async def test_an_answer_that_is_not_the_services_is_no_delivery(kind: str, body: bytes) -> None:
    async with fake_http(answer(200, body)) as server:
        error = await failing(made(kind, server))
    assert not error.permanent
    assert "is not" in error.what
    assert len(error.what) < 500


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "garbage",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 100, b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"],
)
async def test_what_does_not_speak_http_is_tried_again(kind: str, garbage: bytes) -> None:
    async with fake_http(garbage) as server:
        error = await failing(made(kind, server, timeout_seconds=2.0))
    assert not error.permanent


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_that_never_answers_takes_the_senders_timeout_and_no_longer(kind: str) -> None:
    async with fake_http(None) as server:
        loop = asyncio.get_running_loop()
        one = made(kind, server, timeout_seconds=0.3)
        await one.start()
        began = loop.time()
        error = await failing(one)
        assert 0.3 <= loop.time() - began < 2.0
    assert not error.permanent
    assert "no answer within 0.3 s" in error.what
    assert not error.hint, "without TLS there are no certificates to be wrong"


async def test_an_answer_without_end_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 200_000
    async with fake_http(endless) as server:
        one = made("webhook", server)
        assert len(await one.deliver(note())) < 400
        await one.close()


async def test_a_name_with_several_addresses_is_reached_by_the_one_that_takes_the_connection() -> None:
    async with fake_http(TAKEN["webhook"]) as server:
        one = sender("webhook", url=f"http://hooks.example:{server.port}/hook")

        def ask(host: str, port: int) -> Addresses:
            asked.append(host)
            return [info for at in ("127.0.0.9", "127.0.0.1") for info in socket.getaddrinfo(at, port)]

        asked: list[str] = []
        one._lookup = Lookup(ask)  # type: ignore[attr-defined]
        await one.send(note())
        await one.close()
    assert asked == ["hooks.example"]
    assert server.requests[0].headers["host"] == f"hooks.example:{server.port}"


async def test_a_name_that_nobody_answers_for_takes_one_thread_however_often_it_is_asked() -> None:
    silent, asked = threading.Event(), []

    def ask(host: str, port: int) -> Addresses:
        asked.append(host)
        assert silent.wait(10)
        return socket.getaddrinfo("127.0.0.1", port)

    lookup = Lookup(ask)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await lookup.addresses("dead.example", 443)
    silent.set()
    assert (await lookup.addresses("dead.example", 443))[0][4] == ("127.0.0.1", 443)
    assert asked == ["dead.example"]


async def test_an_answer_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    packer, part = zlib.compressobj(1, wbits=31), bytes(1 << 20)
    once = b"".join(packer.compress(part) for _ in range(256)) + packer.flush()
    twice = gzip.compress(once)
    async with fake_http(answer(200, twice, Content_Encoding="gzip, gzip")) as server:
        one = made("webhook", server)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await one.send(note())
        await one.close()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("word", "permanent"), [("ratelimited", False), ("invalid_auth", True), ("<x>\n", True)]
)
async def test_slack_says_no_with_status_200(word: str, permanent: bool) -> None:
    async with fake_http(answer(200, json.dumps({"ok": False, "error": word}))) as server:
        error = await failing(made("slack-token", server))
    assert error.permanent is permanent


async def test_reasons_in_json_are_told_in_words() -> None:
    sms = {"code": 21211, "message": "The 'To' number is not valid", "status": 400, "more_info": "x"}
    async with fake_http(answer(400, json.dumps(sms))) as server:
        assert "The 'To' number is not valid (code 21211)" in (await failing(made("twilio", server))).what
    mail = {"errors": [{"message": "Permission denied, wrong credentials", "field": None, "help": None}]}
    async with fake_http(answer(401, json.dumps(mail))) as server:
        error = await failing(made("sendgrid", server))
    assert "Permission denied, wrong credentials" in error.what
    assert error.permanent


@pytest.mark.parametrize("kind", KINDS)
async def test_no_secret_is_in_logs_errors_or_reprs(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    for given in (
        TAKEN[kind],
        answer(401, f"bad token {SECRET}"),
        answer(500, f"/services/T00/B00/{SECRET}"),
    ):
        async with fake_http(given) as server:
            one = made(kind, server)
            try:
                told.append(await one.deliver(note()))
            except NotifyError as error:
                told += [str(error), repr(error), repr(error.__cause__)]
            told += [repr(one), repr(vars(one)), repr(one.settings), json.dumps(one.status())]
            await one.close()
    one = made(kind, server)  # nobody listens any more
    told.append(str(await failing(one)))
    assert SECRET not in "\n".join([*told, caplog.text])
    assert len(told) > 8


async def test_a_missing_credential_is_waited_for() -> None:
    one = sender("slack", {"other": "x"}, credential="it")
    error = await failing(one)
    assert not error.permanent
    assert "'it'" in error.what


async def test_the_certificate_is_checked_against_the_given_authority(tmp_path: Path) -> None:
    certs, others = make_certs(tmp_path / "a"), make_certs(tmp_path / "b")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certs.server, certs.server_key)
    async with fake_http(TAKEN["webhook"], context=context) as server:
        trusting = sender("webhook", url=server.url, tls={"ca": str(certs.ca)})
        await trusting.send(note())
        await trusting.close()
        error = await failing(sender("webhook", url=server.url, tls={"ca": str(others.ca)}))
        assert not error.permanent
        assert "CERTIFICATE_VERIFY_FAILED" in error.what
        assert "CERTIFICATE_VERIFY_FAILED" in (await failing(sender("webhook", url=server.url))).what
        missing = sender("webhook", url=server.url, tls={"ca": str(tmp_path / "none.pem")})
        assert "none.pem" in (await failing(missing)).what


async def test_a_client_certificate_is_shown_when_given(tmp_path: Path) -> None:
    certs = make_certs(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certs.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certs.server, certs.server_key)
    shown = {"ca": str(certs.ca), "certificate": str(certs.client), "private_key": str(certs.client_key)}
    async with fake_http(TAKEN["webhook"], context=context) as server:
        one = sender("webhook", url=server.url, tls=shown)
        await one.send(note())
        await one.close()
        error = await failing(sender("webhook", url=server.url, tls={"ca": str(certs.ca)}))
    assert not error.permanent
