# SPDX-License-Identifier: Apache-2.0
"""Notifications by SMTP: TLS, login, what becomes of refusals, and text that would forge headers."""

from __future__ import annotations

import email
import logging
import ssl
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from support.certs import Certs, make_certs
from support.fake_smtp import FakeSmtp, fake_smtp
from support.notes import HOSTILE, SECRET, note, sender
from valkyrie.adapters.notify.kinds import checked_adapter
from valkyrie.adapters.notify.message import NotifyError
from valkyrie.control.errors import InvalidInput

LOGIN = {"username": "app", "credential": "it"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return make_certs(Path(tmp_path_factory.mktemp("smtp")))


@pytest.fixture
def context(pki: Certs) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(pki.server, pki.server_key)
    return made


def mailer(server: FakeSmtp, **more: Any) -> Any:
    fields = {"host": "localhost", "port": server.port, "encryption": "none", "timeout_seconds": 5.0}
    people = {"from": "valkyrie@example.net", "to": "ops@example.net"}
    return sender("smtp", **{**fields, **people, **more})


async def failing(one: Any) -> NotifyError:
    with pytest.raises(NotifyError) as caught:
        await one.send(note())
    return caught.value


async def test_a_mail_has_what_a_mail_needs_and_the_same_id_each_time() -> None:
    async with fake_smtp(FakeSmtp()) as server:
        one = mailer(server, to=["a@example.net", "b@example.net"])
        assert await one.deliver(note()) == "answered: queued as 4711"
        await one.send(note())
    (sender_, to, raw), (_, _, again) = server.mails
    assert (sender_, to) == ("valkyrie@example.net", ["a@example.net", "b@example.net"])
    made = email.message_from_string(raw, policy=default)
    assert made["Subject"] == "[warning] Drops above 10 %"
    assert made["To"] == "a@example.net, b@example.net"
    assert made["Date"] == "Tue, 14 Nov 2023 22:13:20 -0000"
    assert made["Auto-Submitted"] == "auto-generated"
    assert made.get_content().startswith("limit web drops 12 % of its packets")
    assert made["Message-ID"] == email.message_from_string(again, policy=default)["Message-ID"]


async def test_text_of_others_forges_no_header() -> None:
    async with fake_smtp(FakeSmtp()) as server:
        await mailer(server).send(note(title=HOSTILE, body=f"{HOSTILE}\n.\nMAIL FROM:<x@y>\n"))
    ((_, to, raw),) = server.mails
    made = email.message_from_string(raw, policy=default)
    assert made["Bcc"] is None
    assert "Bcc: victim" in " ".join(made["Subject"].split())
    assert to == ["ops@example.net"]
    assert "MAIL FROM:<x@y>" in made.get_content()


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
async def test_over_tls_with_login(encryption: str, context: ssl.SSLContext, pki: Certs) -> None:
    async with fake_smtp(FakeSmtp(context, login=("app", SECRET)), tls=encryption == "tls") as server:
        await mailer(server, encryption=encryption, tls={"ca": str(pki.ca)}, **LOGIN).send(note())
        error = await failing(mailer(server, encryption=encryption, **LOGIN))
    assert server.encrypted == [True]
    assert not error.permanent
    assert "CERTIFICATE_VERIFY_FAILED" in error.what


async def test_without_starttls_nothing_is_sent(pki: Certs) -> None:
    async with fake_smtp(FakeSmtp(starttls=False, login=("app", SECRET))) as server:
        error = await failing(mailer(server, encryption="starttls", tls={"ca": str(pki.ca)}, **LOGIN))
    assert not error.permanent
    assert server.mails == []


async def test_a_password_is_never_sent_in_the_clear_to_another_host() -> None:
    fields = {"kind": "smtp", "host": "mail.example.net", "from": "a@b", "to": "c@d", "encryption": "none"}
    with pytest.raises(InvalidInput, match="in the clear"):
        checked_adapter({**fields, **LOGIN})


async def test_a_wrong_password_is_final_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with fake_smtp(FakeSmtp(login=("app", "other"))) as server:
        error = await failing(mailer(server, **LOGIN))
    assert error.permanent
    assert "535" in error.what
    assert SECRET not in str(error) + caplog.text


@pytest.mark.parametrize(
    ("word", "answer", "permanent"),
    [
        ("MAIL", "451 later", False), ("MAIL", "550 never", True), ("DATA", "452 full", False),
        ("DATA", "554 spam", True), ("RCPT", "450 busy", False), ("RCPT", "550 unknown", True),
        ("EHLO", "garbage", False),
    ],
)  # fmt: skip
async def test_codes_are_final_or_not(word: str, answer: str, permanent: bool) -> None:
    async with fake_smtp(FakeSmtp(refuse={word: answer, "HELO": answer})) as server:
        error = await failing(mailer(server))
    assert error.permanent is permanent


async def test_who_of_several_was_refused_is_told() -> None:
    async with fake_smtp(FakeSmtp()) as server:
        error = await failing(mailer(server, to=["a@example.net", "nobody@example.net"]))
    assert error.permanent
    assert "not to nobody@example.net: 550" in error.what
    assert server.mails[0][1] == ["a@example.net"]


async def test_a_server_that_never_answers_or_is_away_is_tried_again() -> None:
    async with fake_smtp(FakeSmtp(refuse={"MAIL": None})) as server:
        error = await failing(mailer(server, timeout_seconds=0.3))
    assert (error.permanent, error.what, error.hint) == (False, "no answer within 0.3 s", "")
    assert not (await failing(mailer(server))).permanent
