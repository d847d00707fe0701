# SPDX-License-Identifier: Apache-2.0
"""What Redis and Valkey have beside the contract of all stores."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import pytest

from support.resp import APPLIANCE, adapter_for
from support.servers import Kind, Server, server, wait_for
from valkyrie.adapters.errors import (
    ConsistencyError,
    StoreConfigurationError,
    StoreConnectionError,
    StoreUnavailable,
)
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import bucket_key, value_key
from valkyrie.adapters.resp.adapter import Put, Remove, RespAdapter
from valkyrie.adapters.resp.info import fields_of, summary
from valkyrie.adapters.secrets import StaticSecrets
from valkyrie.adapters.store import Feature, Request
from valkyrie.control.errors import InvalidInput, NotFound

LOGIN = Limit.of("login", "10/m", "3")


@pytest.fixture
async def store(kind: Kind, resp_server: Server) -> AsyncIterator[RespAdapter]:
    async with adapter_for(kind, resp_server.url, allow_flush=True) as made:
        yield made


async def test_health_says_which_server_it_is(kind: Kind, store: RespAdapter) -> None:
    health = await store.health_check()
    assert health.ok
    assert re.fullmatch(rf"{kind} \d+\.\d+\.\d+", health.detail)
    assert store.stats().extra["server"] == health.detail


async def test_a_client_of_one_kind_serves_a_server_of_the_other(kind: Kind, resp_server: Server) -> None:
    other: Kind = "valkey" if kind == "redis" else "redis"
    async with adapter_for(other, resp_server.url.replace(kind, "redis")) as store:
        assert (await store.health_check()).detail.startswith(kind)
        assert (await store.try_consume("a", limit=LOGIN)).allowed


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_policy_that_evicts_buckets_is_warned_of(
    kind: Kind, resp_server: Server, store: RespAdapter, policy: str
) -> None:
    resp_server.run("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", "100mb")
    try:
        health = await store.health_check()
    finally:
        resp_server.run("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0")
    assert health.ok
    assert policy in health.detail
    assert "full again" in health.detail


async def test_a_server_that_is_too_old_is_refused() -> None:
    info = summary([fields_of(b"redis_version:6.2.14\r\nrole:master\r\n")])
    with pytest.raises(StoreConfigurationError, match="too old"):
        info.check_version()
    summary([fields_of(b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.0.1")]).check_version()


async def test_health_of_a_dead_server_is_told_and_not_raised(kind: Kind) -> None:
    with server(kind) as made:
        async with adapter_for(kind, made.url) as store:
            made.kill()
            health = await store.health_check()
            assert not health.ok
            assert str(made.port) in health.detail


async def test_start_against_nobody_says_so_and_may_be_tried_again(kind: Kind) -> None:
    with server(kind) as made:
        made.kill()
        store = adapter_for(kind, made.url)
        with pytest.raises(StoreConnectionError):
            await store.start()
        made.start()
        async with store:
            await store.set("a", b"1")


async def test_start_against_a_replica_says_that_it_is_read_only(kind: Kind, resp_server: Server) -> None:
    with server(kind, replica_of=resp_server) as replica:
        store = adapter_for(kind, replica.url, max_retries=0)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await store.start()


async def test_a_transaction_is_seen_whole(store: RespAdapter) -> None:
    await store.set("gone", b"x")
    await store.transaction([Put("a", b"1"), Put("b", b"2", ttl=60), Remove("gone")])
    assert await store.get("a") == b"1"
    assert 59 < (await store.ttl("b") or 0) <= 60
    assert not await store.exists("gone")
    await store.transaction([])
    with pytest.raises(InvalidInput):
        await store.transaction([Put("a", b"3"), Put("", b"4")])
    assert await store.get("a") == b"1"


async def test_the_error_of_the_server_about_a_counter_is_a_consistency_error(store: RespAdapter) -> None:
    await store.set("n", b"text")
    for ttl in (None, 60):
        with pytest.raises(ConsistencyError):
            await store.increment("n", ttl=ttl)
    await store.set("n", str((1 << 63) - 1).encode())
    for ttl in (None, 60):
        with pytest.raises(ConsistencyError):
            await store.increment("n", ttl=ttl)


async def test_what_another_program_put_under_a_key_is_a_consistency_error(
    resp_server: Server, store: RespAdapter
) -> None:
    resp_server.run("RPUSH", value_key(APPLIANCE, "list"), "x")
    with pytest.raises(ConsistencyError, match="WRONGTYPE"):
        await store.get("list")


async def test_ttl_is_exact_to_the_millisecond(resp_server: Server, store: RespAdapter) -> None:
    await store.set("a", b"1", ttl=0.0305)
    assert 0 < int(resp_server.run("PTTL", value_key(APPLIANCE, "a"))) <= 31
    await store.set("a", b"1")
    assert await store.ttl("a") is None
    with pytest.raises(NotFound):
        await store.ttl("b")


async def test_many_callers_at_once_get_just_the_burst(store: RespAdapter) -> None:
    decisions = await asyncio.gather(*(store.try_consume("u", limit=LOGIN) for _ in range(200)))
    assert sum(one.allowed for one in decisions) == 3
    refused = next(one for one in decisions if not one.allowed)
    assert 0 < refused.retry_after <= 6
    many = await store.try_consume_many(
        [Request("u", LOGIN, 0), Request("v", LOGIN, 3), Request("v", LOGIN, 9)]
    )
    assert [one.allowed for one in many] == [True, True, False]
    assert many[2].retry_after == inf


async def test_flush_deletes_this_appliances_buckets_and_values_and_nothing_else(
    resp_server: Server, store: RespAdapter
) -> None:
    await store.set("a", b"1")
    for user in range(40):
        await store.try_consume(f"user{user}", limit=LOGIN)
    await store.claim("node", "token")
    await store.put_document("state", b"{}", "token")
    others = ["other", value_key("edge.7", "a"), bucket_key("edge.7", "g:00"), value_key("edgy", "a")]
    for name in others:
        resp_server.run("SET", name, "1")
    resp_server.run("DEL", value_key(APPLIANCE, "\0probe"))
    assert await store.flush_all() == 41
    assert not await store.exists("a")
    assert await store.get_document("state") == b"{}"
    assert resp_server.run("EXISTS", *others) == len(others)


async def test_flush_is_refused_unless_allowed(kind: Kind, resp_server: Server) -> None:
    async with adapter_for(kind, resp_server.url) as store:
        await store.set("a", b"1")
        with pytest.raises(StoreConfigurationError, match="not allowed"):
            await store.flush_all()
        assert await store.exists("a")


async def test_calls_are_counted_by_name(store: RespAdapter) -> None:
    await store.get("a")
    with pytest.raises(NotFound):
        await store.ttl("a")
    operations = store.stats().operations
    assert operations["get"].count == 1
    assert operations["ttl"].errors == 0
    assert 0 < operations["get"].p99_ms < 1000


async def test_after_close_calls_fail_and_close_again_is_nothing(store: RespAdapter) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreConnectionError):
        await store.get("a")


async def test_values_of_valkey_are_compressed_and_encrypted_at_rest(valkey9: Server) -> None:
    secrets = StaticSecrets({"values": b"k" * 32})
    options: dict[str, Any] = {"compression": "zstd", "encryption_credential": "values"}
    async with adapter_for("valkey", valkey9.url, secrets, **options) as store:
        assert store.supports_feature(Feature.ENCRYPTION)
        assert store.supports_feature(Feature.COMPRESSION)
        value = b"plain text " * 1000
        await store.set("a", value)
        stored = valkey9.run("GET", value_key(APPLIANCE, "a"))
        assert b"plain" not in stored
        assert len(stored) < 500
        assert await store.get("a") == value
        await secrets.replace("values", b"n" * 32)
        await store.transaction([Put("b", b"new")])
        assert [await store.get(key) for key in ("a", "b")] == [value, b"new"]
        assert await store.increment("n", 5) == 5
        assert await store.get("n") == b"5"


async def test_reads_of_valkey_go_to_replicas_and_back_to_the_primary(valkey9: Server) -> None:
    with server("valkey", replica_of=valkey9) as replica:
        wait_for(lambda: b"state=online" in valkey9.run("INFO", "replication"), "the replica online")
        async with adapter_for("valkey", valkey9.url, read_from="replica", breaker_seconds=0.2) as store:
            await store.set("a", b"1")
            wait_for(lambda: replica.run("GET", value_key(APPLIANCE, "a")) is not None, "the replica")
            before = _reads(replica)
            for _ in range(20):
                assert await store.get("a") == b"1"
            assert _reads(replica) - before == 20
            replica.kill()
            for _ in range(20):
                assert await store.get("a") == b"1"
            replica.start()
            wait_for(lambda: b"state=online" in valkey9.run("INFO", "replication"), "the replica online")
            deadline = asyncio.get_running_loop().time() + 10
            while _reads(replica) == 0:
                assert asyncio.get_running_loop().time() < deadline
                assert await store.get("a") == b"1"


def _reads(made: Server) -> int:
    text = made.run("INFO", "commandstats").decode()
    return int(text.partition("cmdstat_get:calls=")[2].partition(",")[0] or 0)
