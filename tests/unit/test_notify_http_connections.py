# SPDX-License-Identifier: Apache-2.0
"""How web services are reached: names with several addresses or none, authorities, client certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from pathlib import Path

import pytest

from support.certs import make_certs
from support.fake_http import fake_http
from support.http_senders import TAKEN, failing
from support.notes import note, sender
from valkyrie.adapters.notify.lookup import Addresses, Lookup


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
