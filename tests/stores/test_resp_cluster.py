# SPDX-License-Identifier: Apache-2.0
"""A real cluster of six nodes, and Sentinel: routing, redirects, failover."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest

from support.clusters import Cluster, cluster, info, sentinel
from support.resp import APPLIANCE, adapter_for, client_for
from support.servers import Kind, Server, wait_for
from valkyrie.adapters.errors import (
    OutcomeUnknown,
    StoreConfigurationError,
    StoreConnectionError,
    StoreError,
    StoreUnavailable,
)
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import value_key
from valkyrie.adapters.resp.scripts import INCREMENT
from valkyrie.adapters.resp.topology import slot_of
from valkyrie.adapters.store import Feature, Request

LOGIN = Limit.of("login", "10/m", "3")
CLUSTER: dict[str, Any] = {"cluster_mode": True}
RECOVERED_S = 5.0


def test_slots_are_those_of_the_server(resp_cluster: Cluster) -> None:
    for key in ("a", "vk:{edge.7}:b:x", "{}", "a{}b", "{a}{b}", "x{y", "ü", "{{a}}"):
        assert slot_of(key) == resp_cluster.nodes[0].run("CLUSTER", "KEYSLOT", key), key


async def test_keys_of_every_slot_range_are_reached(kind: Kind, resp_cluster: Cluster) -> None:
    async with client_for(kind, resp_cluster.url, **CLUSTER) as client:
        keys = [f"k{number}" for number in range(300)]
        await client.pipeline([("SET", key, key) for key in keys], repeatable=True)
        found = await client.pipeline([("GET", key) for key in keys], repeatable=True)
        assert found == [key.encode() for key in keys]
        scanned = [name async for piece in client.scan("k*") for name in piece]
        assert set(scanned) == set(keys)
        holders = [node for node in resp_cluster.nodes[:3] if node.run("DBSIZE")]
        assert len(holders) == 3


async def test_an_adapter_works_over_all_shards(kind: Kind, resp_cluster: Cluster) -> None:
    async with adapter_for(kind, resp_cluster.url, allow_flush=True, **CLUSTER) as store:
        assert store.supports_feature(Feature.CLUSTER)
        many = [Request(f"user{number}", LOGIN) for number in range(200)]
        assert all(one.allowed for one in await store.try_consume_many(many))
        calls = [store.try_consume("u", limit=LOGIN) for _ in range(50)]
        assert sum(one.allowed for one in await asyncio.gather(*calls)) == 3
        await store.set("a", b"1")
        assert await store.increment("n", 2, ttl=60) == 2
        assert "3 primaries" in (await store.health_check()).detail
        resp_cluster.primary_of(value_key(APPLIANCE, "\0probe")).run("DEL", value_key(APPLIANCE, "\0probe"))
        assert await store.flush_all() == 203


async def test_without_cluster_mode_the_answer_is_to_set_it(kind: Kind, resp_cluster: Cluster) -> None:
    async with client_for(kind, resp_cluster.url, max_retries=0) as client:
        key = next(
            f"k{n}" for n in range(100) if resp_cluster.primary_of(f"k{n}") is not resp_cluster.nodes[0]
        )
        with pytest.raises(StoreUnavailable, match="cluster_mode"):
            await client.run("GET", key, repeatable=True)


async def test_with_cluster_mode_and_a_single_server_the_answer_is_to_unset_it(
    kind: Kind, resp_server: Server
) -> None:
    with pytest.raises(StoreConfigurationError, match="cluster_mode: false"):
        async with client_for(kind, resp_server.url, **CLUSTER):
            pass


async def test_a_slot_that_moves_is_followed_and_nothing_counts_twice(
    kind: Kind, resp_cluster: Cluster
) -> None:
    async with client_for(kind, resp_cluster.url, **CLUSTER) as client:
        key = "{move}n"
        await client.run("SET", key, 0, repeatable=True)
        source = resp_cluster.primary_of(key)
        target = next(
            node
            for node in resp_cluster.nodes
            if node is not source and info(node, "REPLICATION")["role"] == "master"
        )
        slot = slot_of(key)
        ids = {node.port: node.run("CLUSTER", "MYID").decode() for node in (source, target)}
        try:
            target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
            source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
            assert await client.run("INCR", key, repeatable=False) == 1  # still at the source
            source.run("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
            assert await client.run("INCR", key, repeatable=False) == 2  # ASK
            assert int(await client.script(INCREMENT, [key], [1, 60_000], repeatable=False)) == 3
            await client.transaction([("SET", key, 4)], repeatable=True)
            assert await client.pipeline([("GET", key), ("INCR", key)], repeatable=False) == [b"4", 5]
        finally:
            for node in (target, source, *resp_cluster.nodes):
                if info(node, "REPLICATION")["role"] == "master":
                    node.run("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
        assert await client.run("INCR", key, repeatable=False) == 6  # MOVED
        assert await client.run("INCR", key, repeatable=False) == 7


@pytest.mark.parametrize(("kind", "hangs"), [("redis", False), ("valkey", False), ("valkey", True)])
async def test_a_lost_primary_fails_calls_under_way_and_recovers_in_time(kind: Kind, hangs: bool) -> None:
    with cluster(kind) as made:
        options: dict[str, Any] = {**CLUSTER, "timeout_ms": 500, "breaker_seconds": 1.0}
        async with client_for(kind, made.url, **options) as client:
            key = "n"
            await client.run("SET", key, 0, repeatable=True)
            dead = made.primary_of(key)
            wait_for(lambda: dead.run("WAIT", 1, 100) == 1, "the replica in step")
            elsewhere = next(f"k{n}" for n in range(100) if made.primary_of(f"k{n}") is not dead)
            counted = unknown = 0
            began = time.perf_counter()
            (dead.stop if hangs else dead.kill)()
            while True:
                with suppress(StoreUnavailable):  # CLUSTERDOWN, unless cluster-require-full-coverage is no
                    assert await client.run("GET", elsewhere, repeatable=True) is None
                try:
                    await client.run("INCR", key, repeatable=False)
                    counted += 1
                    break
                except OutcomeUnknown:
                    unknown += 1
                except (StoreConnectionError, StoreUnavailable):
                    pass
                assert time.perf_counter() - began < RECOVERED_S
                await asyncio.sleep(0.01)
            assert unknown <= (5 if hangs else 1)  # until the breaker opens
            assert counted <= int(await client.run("GET", key, repeatable=True)) <= counted + unknown


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_sentinels_name_the_new_primary(kind: Kind) -> None:
    with sentinel(kind) as made:
        options: dict[str, Any] = {
            "sentinel": {"master": "main", "nodes": made.nodes},
            "breaker_seconds": 0.5,
        }
        async with client_for(kind, f"{kind}://unused:1", timeout_ms=500, **options) as client:
            await client.run("SET", "n", 0, repeatable=True)
            wait_for(lambda: made.replica.run("GET", "n") == b"0", "the replica in step")
            made.primary.kill()
            await asyncio.sleep(0.05)  # until the end of the idle connection has been seen
            began = time.perf_counter()
            while True:
                try:
                    assert await client.run("INCR", "n", repeatable=False) == 1
                    break
                except OutcomeUnknown as error:
                    pytest.fail(f"it was idle: {error}")
                except StoreError:
                    assert time.perf_counter() - began < 10
                    await asyncio.sleep(0.02)
            assert made.replica.run("GET", "n") == b"1"


async def test_sentinels_that_do_not_know_the_name_are_told() -> None:
    with sentinel("redis") as made:
        options: dict[str, Any] = {"sentinel": {"master": "other", "nodes": made.nodes}}
        with pytest.raises(StoreConnectionError, match="other"):
            async with client_for("redis", "redis://unused:1", max_retries=0, **options) as client:
                await client.run("PING", repeatable=True)


@pytest.mark.parametrize("kind", ["valkey"])
async def test_reads_of_a_valkey_cluster_go_to_replicas(kind: Kind, resp_cluster: Cluster) -> None:
    made = resp_cluster
    async with adapter_for(kind, made.url, read_from="replica", **CLUSTER) as store:
        await store.set("a", b"1")
        primary = made.primary_of(value_key(APPLIANCE, "a"))
        replica = made.replica_of(primary)
        before = info(replica, "commandstats").get("cmdstat_get", "")
        deadline = time.perf_counter() + 5
        while await store.get("a") != b"1":
            assert time.perf_counter() < deadline
        assert info(replica, "commandstats")["cmdstat_get"] != before
