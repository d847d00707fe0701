# SPDX-License-Identifier: Apache-2.0
"""TLS: who is trusted, who is not, and material that changes while the client runs."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from support.certs import Certs, make_certs
from support.resp import client_for
from support.servers import Kind, Server, server
from valkyrie.adapters.errors import AuthenticationFailed, OutcomeUnknown, StoreConfigurationError, StoreError
from valkyrie.adapters.settings import TlsSettings


def tls(certs: Certs, **options: Any) -> TlsSettings:
    given = {"ca": certs.ca, "certificate": certs.client, "private_key": certs.client_key}
    return TlsSettings(**{**given, **options})


def url(kind: Kind, made: Server, host: str = "localhost") -> str:
    return f"{kind}s://{host}:{made.port}".replace("rediss", "rediss")


async def ping(kind: Kind, at: str, settings: TlsSettings | bool, **options: Any) -> None:
    async with client_for(kind, at, tls=settings, max_retries=0, **options) as client:
        assert await client.run("PING", repeatable=True) == b"PONG"


async def test_mtls_works_with_both_drivers(kind: Kind, redis_mtls: Server, certs: Certs) -> None:
    await ping(kind, url(kind, redis_mtls), tls(certs))
    await ping(kind, url(kind, redis_mtls, "127.0.0.1"), tls(certs))


async def test_tls_true_in_the_settings_means_tls(kind: Kind, redis_mtls: Server, certs: Certs) -> None:
    await ping(kind, f"{kind}://localhost:{redis_mtls.port}", tls(certs))


async def test_a_wrong_host_name_is_refused(kind: Kind, tmp_path: Path) -> None:
    other = make_certs(tmp_path / "other", names=("elsewhere.example",))
    with server("redis", certs=other) as made:
        with pytest.raises(AuthenticationFailed, match="not trusted") as caught:
            await ping(kind, url(kind, made), tls(other))
        assert not caught.value.retryable
        await ping(kind, url(kind, made), tls(other, server_name="elsewhere.example"))


async def test_an_authority_that_is_not_ours_is_refused(
    kind: Kind, redis_mtls: Server, certs: Certs, tmp_path: Path
) -> None:
    other = make_certs(tmp_path / "other")
    with pytest.raises(AuthenticationFailed, match="not trusted"):
        await ping(kind, url(kind, redis_mtls), tls(certs, ca=other.ca))
    with pytest.raises(AuthenticationFailed, match="not trusted"):
        await ping(kind, url(kind, redis_mtls), True)  # the system's authorities


async def test_a_missing_client_certificate_is_told_before_anything_is_sent(
    kind: Kind, redis_mtls: Server, certs: Certs
) -> None:
    async with client_for(kind, url(kind, redis_mtls), tls=TlsSettings(ca=certs.ca), max_retries=0) as client:
        with pytest.raises(StoreError) as caught:
            await client.run("INCR", "n", repeatable=False)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert "certificate" in str(caught.value)  # the alert says so, unless the reset overtook it
    assert redis_mtls.run("EXISTS", "n") == 0


async def test_tls_to_a_server_without_it_fails_in_time(kind: Kind, resp_server: Server) -> None:
    with pytest.raises(StoreError, match="speaks TLS"):
        await ping(kind, url(kind, resp_server), True, timeout_ms=500)


async def test_no_tls_to_a_server_that_wants_it_is_told_with_what_to_set(
    kind: Kind, redis_mtls: Server
) -> None:
    with pytest.raises(StoreError, match="tls: true"):
        await ping(kind, f"{kind}://localhost:{redis_mtls.port}", False)


async def test_files_that_cannot_be_used_are_named(kind: Kind, redis_mtls: Server, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(StoreConfigurationError, match=r"missing\.pem"):
        await ping(kind, url(kind, redis_mtls), TlsSettings(ca=missing))


async def test_changed_material_is_used_by_new_connections_and_old_ones_live_on(
    kind: Kind, redis_mtls: Server, certs: Certs, tmp_path: Path
) -> None:
    mine = {name: tmp_path / name for name in ("ca", "certificate", "private_key")}
    stranger = make_certs(tmp_path / "stranger")
    put(mine, certs.ca, certs.client, certs.client_key)
    settings = TlsSettings(**mine)
    options: dict[str, Any] = {
        "tls": settings,
        "max_retries": 0,
        "breaker_failures": 1000,
        "breaker_seconds": 0.1,
    }
    async with client_for(kind, url(kind, redis_mtls), **options) as client:
        await client.run("PING", repeatable=True)
        put(mine, stranger.ca, stranger.client, stranger.client_key)
        await client.run("PING", repeatable=True)  # on the old connection
        redis_mtls.run("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
        await asyncio.sleep(0.05)
        with pytest.raises(AuthenticationFailed):
            await client.run("PING", repeatable=True)
        put(mine, certs.ca, certs.client, certs.client_key)
        await asyncio.sleep(0.1)
        assert await client.run("PING", repeatable=True) == b"PONG"
        mine["certificate"].write_text("half a fi")
        redis_mtls.run("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
        await asyncio.sleep(0.05)
        assert await client.run("PING", repeatable=True) == b"PONG"  # the earlier material serves on


def put(mine: dict[str, Path], *sources: Path) -> None:
    """Replace files as a deployment does: a new file moved over the old one."""
    for path, source in zip(mine.values(), sources, strict=True):
        shutil.copy(source, f"{path}.new")
        Path(f"{path}.new").replace(path)


async def test_a_hundred_connections_share_one_context(
    kind: Kind, redis_mtls: Server, certs: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    real = ssl.create_default_context

    def counting(*args: Any, **options: Any) -> ssl.SSLContext:
        nonlocal made
        made += 1
        return real(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    options: dict[str, Any] = {"tls": tls(certs), "pool_size": 100, "timeout_ms": 20_000}
    async with client_for(kind, url(kind, redis_mtls), **options) as client:
        blocking = [client.run("BLPOP", "never", "1", repeatable=True) for _ in range(100)]
        assert await asyncio.gather(*blocking) == [None] * 100
        assert client.connections == 100
    assert made == 1
