# SPDX-License-Identifier: Apache-2.0
"""The appliance's state in real servers: owners, buckets, documents."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.clusters import Cluster
from support.connected import connected
from support.resp import client_for
from support.servers import Kind, Server, server
from valkyrie.adapters.durable import BucketLevel, DurableStore
from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import SHARDS, bucket_key, claim_key, owner_key, shard_of
from valkyrie.adapters.resp import documents
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.consume import Consumer, Taking
from valkyrie.adapters.resp.durable import RespDurable
from valkyrie.adapters.resp.scripts import INCREMENT
from valkyrie.adapters.secrets import StaticSecrets
from valkyrie.adapters.store import Decision
from valkyrie.control.errors import InvalidInput

HOUR = 3600 * 64 * 10**9  # in units
SECOND = 64 * 10**9
MIB = 1 << 20
LEAST = (
    "~vk:* resetchannels -@all +@connection +eval +evalsha +time +scan +get +mget +set +exists +incrby"
    " +unlink +hget +hmget +hset +hdel +strlen +append +getrange +rename +pexpire +persist"
)
"""What a user must be allowed for all scripts; docs/stores.md says so too."""


def names(count: int) -> list[str]:
    return [f"web:0000{number:032x}" for number in range(count)]


@pytest.fixture(params=["single", "cluster"])
async def client(kind: Kind, request: pytest.FixtureRequest) -> AsyncIterator[RespClient]:
    """Of each kind, single and cluster."""
    where = request.getfixturevalue("resp_server" if request.param == "single" else "resp_cluster")
    async with connected(where) as made:
        yield made


@pytest.fixture
async def store(client: RespClient) -> RespDurable:
    return RespDurable(client, "edge")


@asynccontextmanager
async def durable(where: Server | Cluster) -> AsyncIterator[RespDurable]:
    async with connected(where) as made:
        yield RespDurable(made, "edge")


async def levels(store: DurableStore) -> dict[str, int]:
    return {bucket.name: bucket.level async for piece in store.buckets() for bucket in piece}


async def test_it_is_a_durable_store(store: RespDurable) -> None:
    kept: DurableStore = store
    assert kept.batch >= 100


async def test_a_second_claim_is_refused_by_name_until_the_owner_releases(store: RespDurable) -> None:
    first = await store.claim("one", "t1")
    assert (first.epoch, first.node) == (1, "one")
    with pytest.raises(ConsistencyError, match="one syncs under the name edge"):
        await store.claim("two", "t2")
    present = await store.owner()
    assert present is not None
    assert (present.token, present.node, present.epoch) == ("t1", "one", 1)
    await store.release("t2")
    await store.renew("t1")
    await store.release("t1")
    assert await store.owner() is None
    assert (await store.claim("two", "t2")).epoch == 2


async def test_the_same_token_may_claim_again_with_a_later_epoch(store: RespDurable) -> None:
    await store.claim("one", "t1")
    assert (await store.claim("one", "t1")).epoch == 2


async def test_whoever_was_silent_for_long_is_replaced(store: RespDurable) -> None:
    await store.claim("one", "t1")
    with pytest.raises(ConsistencyError):
        await store.claim("two", "t2", silent_s=3600)
    await asyncio.sleep(0.05)
    await store.claim("two", "t2", silent_s=0.04)
    present = await store.owner()
    assert present is not None
    assert present.token == "t2"
    assert present.silent_s < 5


async def test_of_many_that_claim_at_once_one_gets_it(store: RespDurable) -> None:
    claims = (store.claim(f"node{number}", f"t{number}") for number in range(12))
    done = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in done) == 1
    assert sum(isinstance(outcome, ConsistencyError) for outcome in done) == 11


async def test_of_many_takeovers_at_once_the_last_can_write_and_no_other(store: RespDurable) -> None:
    claims = (store.claim(f"node{number}", f"t{number}", takeover=True) for number in range(6))
    await asyncio.gather(*claims, return_exceptions=True)
    present = await store.owner()
    assert present is not None
    buckets = [BucketLevel(name, HOUR) for name in names(200)]
    for number in range(6):
        if f"t{number}" == present.token:
            await store.renew(present.token)
            await store.write_buckets(buckets, present.token)
        else:
            with pytest.raises(ConsistencyError):
                await store.write_buckets(buckets, f"t{number}")


async def test_a_former_owner_can_write_nothing(store: RespDurable) -> None:
    await store.claim("one", "t1")
    await store.write_buckets([BucketLevel(name, HOUR) for name in names(100)], "t1")
    await store.put_document("state", b"first", "t1")
    await store.claim("two", "t2", takeover=True)
    before = await levels(store)
    for act in (
        store.renew("t1"),
        store.write_buckets([BucketLevel(name, 2 * HOUR) for name in names(200)], "t1"),
        store.drop_buckets(names(100), "t1"),
        store.put_document("state", b"second", "t1"),
    ):
        with pytest.raises(ConsistencyError, match="two does"):
            await act
    after = await levels(store)
    assert after.keys() == before.keys()
    assert all(after[name] <= before[name] for name in before)
    assert await store.get_document("state") == b"first"


async def test_nobody_writes_without_a_claim(store: RespDurable) -> None:
    with pytest.raises(ConsistencyError, match="lost data"):
        await store.write_buckets([BucketLevel("web:00", HOUR)], "t1")
    with pytest.raises(ValueError, match="token"):
        await store.claim("one", "")


async def test_a_store_that_lost_its_data_says_so_and_can_be_claimed(resp_server: Server) -> None:
    async with durable(resp_server) as store:
        await store.claim("one", "t1")
        resp_server.run("FLUSHALL")
        with pytest.raises(ConsistencyError, match="lost data"):
            await store.renew("t1")
        with pytest.raises(ConsistencyError, match="lost data"):
            await store.write_buckets([BucketLevel("web:00", HOUR)], "t1")
        await store.claim("one", "t1")
        await store.renew("t1")


async def test_a_shard_that_lost_its_data_is_noticed_and_mended(resp_cluster: Cluster) -> None:
    key = owner_key("edge", 7)
    async with durable(resp_cluster) as store:
        await store.claim("one", "t1")
        resp_cluster.primary_of(key).run("DEL", key)
        with pytest.raises(ConsistencyError, match="lost data"):
            await store.renew("t1")
        with pytest.raises(ConsistencyError, match="one syncs"):
            await store.claim("two", "t2")
        await store.claim("one", "t1")
        await store.renew("t1")


async def test_a_claim_that_was_lost_does_not_give_the_name_away(resp_cluster: Cluster) -> None:
    key = claim_key("edge")
    async with durable(resp_cluster) as store:
        await store.claim("one", "t1")
        resp_cluster.primary_of(key).run("DEL", key)
        with pytest.raises(ConsistencyError, match="one syncs"):
            await store.claim("two", "t2")
        assert (await store.claim("two", "t2", takeover=True)).epoch == 2
        with pytest.raises(ConsistencyError, match="two does"):
            await store.renew("t1")


async def test_what_was_written_is_read_back_and_shrinks_with_time(store: RespDurable) -> None:
    await store.claim("one", "t1")
    rng = random.Random(1)
    wanted = {name: rng.randrange(HOUR, 1 << 62) for name in names(3000)}
    await store.write_buckets([BucketLevel(*pair) for pair in wanted.items()], "t1")
    found = await levels(store)
    assert found.keys() == wanted.keys()
    assert all(wanted[name] - 30 * SECOND < found[name] <= wanted[name] for name in wanted)


async def test_a_write_never_lowers_and_full_buckets_are_not_written(store: RespDurable) -> None:
    await store.claim("one", "t1")
    high, low, full = names(3)
    await store.write_buckets([BucketLevel(high, 2 * HOUR), BucketLevel(low, HOUR)], "t1")
    await store.write_buckets(
        [BucketLevel(high, HOUR), BucketLevel(low, 3 * HOUR), BucketLevel(full, 0)], "t1"
    )
    found = await levels(store)
    assert found.keys() == {high, low}
    assert found[high] > HOUR * 1.9
    assert found[low] > HOUR * 2.9


async def test_a_written_bucket_is_the_one_that_calls_take_from(client: RespClient) -> None:
    store = RespDurable(client, "edge")
    cost = Limit.of("web", "1/h", "10").cost
    await store.claim("one", "t1")
    await store.write_buckets([BucketLevel(names(1)[0], 8 * HOUR)], "t1")
    consumer = Consumer(client, "edge", "redis")
    (found,) = await consumer.take([Taking(names(1)[0], cost, 1)])
    assert isinstance(found, Decision)
    assert found.remaining == 1
    assert 8.9 * HOUR < (await levels(store))[names(1)[0]] <= 9 * HOUR


async def test_dropped_buckets_are_gone_and_others_stay(store: RespDurable) -> None:
    await store.claim("one", "t1")
    await store.write_buckets([BucketLevel(name, HOUR) for name in names(500)], "t1")
    await store.drop_buckets(names(400), "t1")
    await store.drop_buckets(names(400), "t1")
    assert (await levels(store)).keys() == set(names(500)[400:])


async def test_other_appliances_buckets_are_not_ours(client: RespClient) -> None:
    for appliance in ("edge", "edge.1", "edg", "edge-2"):
        other = RespDurable(client, appliance)
        await other.claim(appliance, "t1")
        await other.write_buckets([BucketLevel(f"{appliance}:00", HOUR)], "t1")
    for appliance in ("edge", "edge.1", "edg", "edge-2"):
        assert (await levels(RespDurable(client, appliance))).keys() == {f"{appliance}:00"}


async def test_no_bucket_is_immortal(resp_server: Server) -> None:
    async with durable(resp_server) as store:
        await store.claim("one", "t1")
        await store.write_buckets(
            [BucketLevel(name, 1 + number) for number, name in enumerate(names(300))], "t1"
        )
        lives = [resp_server.run("PTTL", bucket_key("edge", name)) for name in names(300)]
    assert all(life == -2 or 0 < life <= 1001 for life in lives)


async def test_what_is_no_bucket_is_skipped_in_reading_and_replaced_in_writing(resp_server: Server) -> None:
    spoilt, other = names(2)
    resp_server.run("SET", bucket_key("edge", spoilt), "text")
    resp_server.run("HSET", bucket_key("edge", other), "a", "b")
    async with durable(resp_server) as store:
        await store.claim("one", "t1")
        assert await levels(store) == {}
        await store.write_buckets([BucketLevel(spoilt, HOUR), BucketLevel(other, HOUR)], "t1")
        assert (await levels(store)).keys() == {spoilt, other}


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 7])
async def test_a_document_is_read_as_it_was_written(store: RespDurable, size: int) -> None:
    await store.claim("one", "t1")
    assert await store.get_document("state") is None
    for _ in range(2):
        content = os.urandom(size)
        await store.put_document("state", content, "t1")
        await store.put_document("state", content, "t1")
        assert await store.get_document("state") == content
    assert await store.get_document("counters") is None


async def test_a_document_outlives_its_unfinished_successor(resp_server: Server) -> None:
    async with durable(resp_server) as store:
        await store.claim("one", "t1")
        await store.put_document("state", b"old" * MIB, "t1")
        real, sent = store._client.script, 0

        async def cut(*given: object, **options: object) -> object:
            nonlocal sent
            sent += 1
            if sent > 2:
                raise ConnectionResetError
            return await real(*given, **options)  # type: ignore[arg-type]

        store._client.script = cut  # type: ignore[method-assign]
        with pytest.raises(ConnectionResetError):
            await store.put_document("state", b"new" * MIB, "t1")
        store._client.script = real  # type: ignore[method-assign]
        assert await store.get_document("state") == b"old" * MIB
        parts = resp_server.run("KEYS", "vk:{edge}:part:*")
        assert [0 < resp_server.run("PTTL", part) <= 600_000 for part in parts] == [True]
        await store.put_document("state", b"new" * MIB, "t1")  # goes on where the other ended
        assert await store.get_document("state") == b"new" * MIB
        assert resp_server.run("KEYS", "vk:{edge}:part:*") == []
        assert resp_server.run("PTTL", "vk:{edge}:doc:state") == -1


async def test_a_reader_never_sees_half_of_a_document(resp_server: Server) -> None:
    async with durable(resp_server) as store, durable(resp_server) as reader:
        await store.claim("one", "t1")
        await store.put_document("state", bytes([0]) * 3 * MIB, "t1")

        async def write() -> None:
            for number in range(1, 8):
                await store.put_document("state", bytes([number]) * (2 + number % 3) * MIB, "t1")

        writing = asyncio.create_task(write())
        seen = 0
        while not writing.done():
            try:
                content = await reader.get_document("state")
            except ConsistencyError:
                continue
            seen += 1
            assert content is not None
            assert len(set(content)) == 1
        await writing
    assert seen > 0


async def test_a_document_larger_than_any_of_ours_is_not_read(
    store: RespDurable, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.claim("one", "t1")
    await store.put_document("state", bytes(2 * MIB), "t1")
    monkeypatch.setattr(documents, "MAX_DOCUMENT", 2 * MIB - 1)
    with pytest.raises(ConsistencyError, match="has 2097152 bytes"):
        await store.get_document("state")


async def test_a_document_that_is_too_large_is_refused(store: RespDurable) -> None:
    with pytest.raises(InvalidInput):
        await store.put_document("state", bytes(64 * MIB + 1), "t1")


async def test_all_that_was_acknowledged_survives_kill_9(kind: Kind) -> None:
    with server(kind, appendonly=True) as made:
        async with durable(made) as store:
            await store.claim("one", "t1")
            await store.write_buckets([BucketLevel(name, HOUR) for name in names(250)], "t1")
            await store.put_document("state", b"content" * MIB, "t1")
        made.restart()
        async with durable(made) as store:
            assert len(await levels(store)) == 250
            assert await store.get_document("state") == b"content" * MIB
            with pytest.raises(ConsistencyError):
                await store.claim("two", "t2", silent_s=60)
            await store.renew("t1")


async def test_a_user_who_may_run_nothing_else_can_do_all_of_it(kind: Kind) -> None:
    with server(kind, users=[f"user least on >its-password {LEAST}"]) as made:
        secrets = StaticSecrets({"least": "its-password"})
        options: dict[str, Any] = {"username": "least", "credential": "least", "timeout_ms": 10_000}
        async with client_for(kind, made.url, secrets, **options) as client:
            store = RespDurable(client, "edge")
            await store.claim("one", "t1")
            await store.renew("t1")
            await store.write_buckets([BucketLevel(name, HOUR) for name in names(10)], "t1")
            await store.drop_buckets(names(5), "t1")
            await store.put_document("state", b"content", "t1")
            assert await store.get_document("state") == b"content"
            assert (await levels(store)).keys() == set(names(10)[5:])
            (found,) = await Consumer(client, "edge", kind).take(
                [Taking(names(1)[0], Limit.of("web", "1/h", "10").cost, 1)]
            )
            assert isinstance(found, Decision)
            for _ in range(2):
                await client.script(INCREMENT, ["vk:{edge}:kv:a"], [1, 60_000], repeatable=False)
            await store.release("t1")


def test_names_spread_over_all_shards() -> None:
    assert {shard_of(name) for name in names(1000)} == set(range(SHARDS))
