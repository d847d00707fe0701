# SPDX-License-Identifier: Apache-2.0
"""What failures of web services become: final or not, waits, garbage for answers; no secret is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import resource
import zlib
from email.utils import formatdate

import pytest

from support.fake_http import answer, fake_http
from support.http_senders import KINDS, TAKEN, failing, made
from support.notes import SECRET, note, sender
from valkyrie.adapters.notify.http import MAX_RETRY_AFTER, wait_asked
from valkyrie.adapters.notify.message import NotifyError


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
