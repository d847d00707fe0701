# SPDX-License-Identifier: Apache-2.0
"""The script that takes tokens, in real servers, against the arithmetic that all stores share."""

import asyncio
from struct import Struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.clusters import Cluster
from support.connected import connected
from support.servers import Kind, Server, server, wait_for
from valkyrie.adapters import gcra
from valkyrie.adapters.errors import ConsistencyError, StoreError, StoreUnavailable
from valkyrie.adapters.limit import MAX_TOKENS, Limit
from valkyrie.adapters.naming import SHARDS, bucket_key, shard_of
from valkyrie.adapters.resp.consume import Consumer, Taking, _pairs
from valkyrie.adapters.resp.scripts import INCREMENT, TAKE
from valkyrie.adapters.store import Decision
from valkyrie.control.cost import MAX_TAU, Cost

TEN_A_MINUTE = Limit.of("login", "10/m", "3").cost
SLOW = Limit.of("slow", "1/h", "1000").cost  # what it gives back during a test is less than a token
ANSWERS = Struct("<BdH")

costs = st.builds(
    Cost,
    mult=st.integers(1, (1 << 47) - 1) | st.integers(1, 200_000),
    shift=st.integers(0, 32),
    tau=st.integers(0, MAX_TAU - 1) | st.integers(0, 10_000_000_000),
)
takes = st.tuples(st.integers(0, 3), costs, st.integers(0, 5) | st.integers(0, MAX_TOKENS))


def bucket(number: int, group: str = "login") -> str:
    return f"{group}:0000{number:032x}"


def in_shard(shard: int, count: int) -> list[str]:
    found = (name for number in range(100_000) if shard_of(name := bucket(number)) == shard)
    return [next(found) for _ in range(count)]


def levels_at(state: dict[str, int], key: str, now: int) -> int:
    """The reference: TATs in units, looked at from `now` in microseconds."""
    return max(0, state.get(key, 0) - now * gcra.UNITS_A_US)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(takes, min_size=1, max_size=12), min_size=1, max_size=4))
def test_the_script_decides_bit_for_bit_as_the_reference(
    resp_server: Server, batches: list[list[tuple[int, Cost, int]]]
) -> None:
    state: dict[str, int] = {}
    with resp_server.client() as client:
        client.flushall()
        sha = client.script_load(TAKE.text)
        for batch in batches:
            keys = [f"k{number}" for number, _, _ in batch]
            asked = b"".join(_pairs(cost, n) for _, cost, n in batch)
            reply = client.evalsha(sha, len(keys), *keys, asked)
            assert isinstance(reply, bytes)
            (now,) = Struct("<d").unpack_from(reply)
            for key, (_, cost, n), answer in zip(keys, batch, ANSWERS.iter_unpack(reply[8:]), strict=True):
                allowed, level = gcra.take(levels_at(state, key, int(now)), cost, n)
                if allowed and n:
                    state[key] = int(now) * gcra.UNITS_A_US + level
                verdict, us, units = answer
                assert (verdict, int(us) * gcra.UNITS_A_US + units) == (int(allowed), level)


async def test_a_burst_then_nothing_with_the_wait_told(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        consumer = Consumer(client, "edge", resp_server.kind)
        outcomes = await consumer.take([Taking(bucket(1), TEN_A_MINUTE, 1)] * 4)
    decisions = [outcome for outcome in outcomes if isinstance(outcome, Decision)]
    assert [decision.allowed for decision in decisions] == [True, True, True, False]
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0]
    assert 5.9 < decisions[3].retry_after <= 6
    assert 17.9 < decisions[3].reset_after <= 18
    assert decisions[3].store == resp_server.kind


async def test_a_look_takes_nothing_and_leaves_no_key(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        (found,) = await Consumer(client, "edge", "redis").take([Taking(bucket(1), TEN_A_MINUTE, 0)])
    assert isinstance(found, Decision)
    assert (found.allowed, found.remaining, resp_server.run("DBSIZE")) == (True, 3, 0)


async def test_a_bucket_lives_as_long_as_it_is_short_of_full_and_a_second(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        takings = [Taking(bucket(number), SLOW, 1 + number % 1000) for number in range(300)]
        takings.append(Taking(bucket(1000), Cost(MAX_TAU - 1, 0, MAX_TAU - 1), 1))
        outcomes = await Consumer(client, "edge", "redis").take(takings)
    assert all(isinstance(outcome, Decision) and outcome.allowed for outcome in outcomes)
    for taking in takings:
        key = bucket_key("edge", taking.bucket)
        full_us = int(resp_server.run("GET", key).partition(b":")[0])
        assert full_us + 999_000 <= resp_server.run("PEXPIRETIME", key) * 1000 <= full_us + 1_003_000
    assert resp_server.run("DBSIZE") == 301


@pytest.mark.parametrize(
    "value",
    [
        "",
        "text",
        "1:64000",
        "1:-1",
        "-1:1",
        "1:1:1",
        "9007199254740992:0",
        "1e3:0",
        "1.5:0",
        "12345678901234567:1",
    ],
)
async def test_a_key_that_holds_no_bucket_fails_alone_and_is_left_alone(
    resp_server: Server, value: str
) -> None:
    resp_server.run("SET", bucket_key("edge", bucket(2)), value)
    resp_server.run("HSET", bucket_key("edge", bucket(3)), "a", "b")
    async with connected(resp_server) as client:
        outcomes = await Consumer(client, "edge", "redis").take(
            [Taking(bucket(number), TEN_A_MINUTE, 1) for number in (1, 2, 3, 4)]
        )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Decision, ConsistencyError, ConsistencyError, Decision]
    assert bucket(2) in str(outcomes[1])
    assert resp_server.run("GET", bucket_key("edge", bucket(2))) == value.encode()


async def test_a_call_of_thousands_is_decided_in_order(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        outcomes = await Consumer(client, "edge", "redis").take([Taking(bucket(1), SLOW, 1)] * 1500)
    allowed = [isinstance(outcome, Decision) and outcome.allowed for outcome in outcomes]
    assert allowed == [True] * 1000 + [False] * 500


async def test_scripts_come_back_after_a_flush_and_a_restart(kind: Kind) -> None:
    with server(kind, appendonly=True) as made:
        async with connected(made) as client:
            consumer = Consumer(client, "edge", kind)
            for spoil in (lambda: made.run("SCRIPT", "FLUSH"), made.restart, lambda: None):
                outcomes = await consumer.take([Taking(bucket(1), SLOW, 10)])
                spoil()
                while isinstance(outcomes[0], StoreError):  # a pooled connection is found broken, once each
                    outcomes = await consumer.take([Taking(bucket(1), SLOW, 10)])
            (found,) = await consumer.take([Taking(bucket(1), SLOW, 0)])
            assert isinstance(found, Decision)
            assert found.remaining == 970


async def test_memory_that_is_full_refuses_the_whole_call(kind: Kind) -> None:
    with server(kind) as made:
        async with connected(made) as client:
            consumer = Consumer(client, "edge", kind)
            await consumer.take([Taking(bucket(1), SLOW, 1)])
            made.run("CONFIG", "SET", "maxmemory", "1")
            outcomes = await consumer.take([Taking(bucket(1), SLOW, 1), Taking(bucket(2), SLOW, 1)])
            assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2
            made.run("CONFIG", "SET", "maxmemory", "0")
            (found,) = await consumer.take([Taking(bucket(1), SLOW, 0)])
            assert isinstance(found, Decision)
            assert found.remaining == 999


async def test_a_replica_knows_the_same_bucket(kind: Kind) -> None:
    with server(kind) as primary, server(kind, replica_of=primary) as replica:
        wait_for(lambda: replica.run("ROLE")[3] == b"connected", "the replica's link")
        async with connected(primary) as client:
            await Consumer(client, "edge", kind).take([Taking(bucket(1), SLOW, 7)])
        key = bucket_key("edge", bucket(1))
        wait_for(lambda: replica.run("GET", key) is not None, "replication")
        assert replica.run("GET", key) == primary.run("GET", key)
        assert replica.run("PEXPIRETIME", key) == primary.run("PEXPIRETIME", key)


async def test_a_batch_over_all_shards_of_a_cluster_comes_back_in_order(resp_cluster: Cluster) -> None:
    names = [name for shard in range(SHARDS) for name in in_shard(shard, 3)] * 2
    async with connected(resp_cluster) as client:
        outcomes = await Consumer(client, "edge", "valkey").take(
            [Taking(name, SLOW, number) for number, name in enumerate(names)]
        )
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, Decision)
        before = number - len(names) // 2
        assert outcome.remaining == 1000 - number - max(0, before)


async def test_a_failover_keeps_buckets(resp_cluster: Cluster) -> None:
    name = bucket(5)
    key = bucket_key("edge", name)
    async with connected(resp_cluster, max_retries=0) as client:
        consumer = Consumer(client, "edge", "valkey")
        await consumer.take([Taking(name, SLOW, 400)])
        primary = resp_cluster.primary_of(key)
        replica = resp_cluster.replica_of(primary)
        with replica.client() as other:
            other.readonly()
            wait_for(lambda: other.get(key) is not None, "replication")
        primary.kill()
        try:
            outcome = None
            end = asyncio.get_running_loop().time() + 20
            while not isinstance(outcome, Decision):
                assert asyncio.get_running_loop().time() < end, outcome
                (outcome,) = await consumer.take([Taking(name, SLOW, 0)])
                await asyncio.sleep(0.05)
            assert outcome.remaining == 600
        finally:
            primary.start()
            resp_cluster.wait_until_whole()


async def test_increment_sets_a_life_only_when_it_makes_the_value(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        big = (1 << 62) + 1
        assert int(await client.script(INCREMENT, ["a"], [big, 60_000], repeatable=False)) == big
        resp_server.run("PEXPIRE", "a", 5000)
        assert int(await client.script(INCREMENT, ["a"], [-3, 60_000], repeatable=False)) == big - 3
        assert 0 < resp_server.run("PTTL", "a") <= 5000
        resp_server.run("SET", "b", "text")
        with pytest.raises(ConsistencyError):
            await client.script(INCREMENT, ["b"], [1, 60_000], repeatable=False)
        with pytest.raises(ConsistencyError):
            await client.script(INCREMENT, ["a"], [big + 3, 60_000], repeatable=False)
