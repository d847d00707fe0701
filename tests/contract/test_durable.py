# SPDX-License-Identifier: Apache-2.0
"""Stores that keep an appliance's state: one owner at a time, levels that only rise, documents."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from support.contract import APPLIANCE, Durable, Maker
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import bucket_of, name_of
from valkyrie.control.cost import UNITS_A_NS
from valkyrie.control.dataplane.keyname import opaque
from valkyrie.control.key import ID

SECOND = 1_000_000_000 * UNITS_A_NS
SLOW = Limit.of("slow", "10/h", "10")


def names(count: int) -> list[str]:
    return [name_of("web", opaque(str(number))) for number in range(count)]


async def levels(store: Durable) -> dict[str, int]:
    found: dict[str, int] = {}
    async for page in store.buckets():
        assert page
        found.update((each.name, each.level) for each in page)
    return found


async def test_nobody_owns_a_new_name(durable: Durable) -> None:
    assert await durable.owner() is None


async def test_who_claims_is_the_owner(durable: Durable) -> None:
    claimed = await durable.claim("left", "token-1")
    assert (claimed.node, claimed.token) == ("left", "token-1")
    owner = await durable.owner()
    assert owner is not None
    assert (owner.node, owner.token, owner.epoch) == ("left", "token-1", claimed.epoch)
    assert 0 <= owner.silent_s < 10


async def test_another_is_refused_and_told_who_owns(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    with pytest.raises(ConsistencyError, match="left"):
        await durable.claim("right", "token-2")
    owner = await durable.owner()
    assert owner is not None
    assert owner.node == "left"


async def test_the_owner_may_claim_again_and_the_epoch_rises(durable: Durable) -> None:
    first = await durable.claim("left", "token-1")
    second = await durable.claim("left", "token-1")
    assert second.epoch > first.epoch


async def test_one_may_take_over(durable: Durable) -> None:
    first = await durable.claim("left", "token-1")
    second = await durable.claim("right", "token-2", takeover=True)
    assert second.epoch > first.epoch
    with pytest.raises(ConsistencyError, match="right"):
        await durable.renew("token-1")
    await durable.renew("token-2")


async def test_one_who_is_silent_loses_the_name(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    await asyncio.sleep(0.3)
    with pytest.raises(ConsistencyError):
        await durable.claim("right", "token-2", silent_s=60)
    await durable.claim("right", "token-2", silent_s=0.25)


async def test_renewing_ends_the_silence(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    await asyncio.sleep(0.3)
    owner = await durable.owner()
    assert owner is not None
    assert owner.silent_s >= 0.29
    await durable.renew("token-1")
    again = await durable.owner()
    assert again is not None
    assert again.silent_s < owner.silent_s


async def test_a_name_that_was_released_is_free_at_once(durable: Durable) -> None:
    first = await durable.claim("left", "token-1")
    await durable.release("token-2")
    assert await durable.owner() is not None
    await durable.release("token-1")
    assert await durable.owner() is None
    with pytest.raises(ConsistencyError):
        await durable.renew("token-1")
    assert (await durable.claim("right", "token-2")).epoch > first.epoch


async def test_of_many_claims_at_once_one_wins(durable: Durable) -> None:
    claims = (durable.claim(f"node-{i}", f"token-{i}") for i in range(10))
    results = await asyncio.gather(*claims, return_exceptions=True)
    won = [each for each in results if not isinstance(each, BaseException)]
    assert len(won) == 1
    assert all(isinstance(each, ConsistencyError) for each in results if each is not won[0])
    owner = await durable.owner()
    assert owner is not None
    assert owner.token == won[0].token


WRITES: dict[str, Callable[[Durable, str], Awaitable[None]]] = {
    "write": lambda store, token: store.write_buckets([BucketLevel(names(1)[0], SECOND)], token),
    "drop": lambda store, token: store.drop_buckets(names(1), token),
    "document": lambda store, token: store.put_document("state", b"new", token),
}


@pytest.mark.parametrize("write", WRITES)
async def test_no_one_but_the_owner_writes(durable: Durable, write: str) -> None:
    with pytest.raises(ConsistencyError):
        await WRITES[write](durable, "token-0")
    await durable.claim("left", "token-1")
    await durable.write_buckets([BucketLevel(name, 60 * SECOND) for name in names(50)], "token-1")
    await durable.put_document("state", b"old", "token-1")
    await durable.claim("right", "token-2", takeover=True)
    before = await levels(durable)
    with pytest.raises(ConsistencyError):
        await WRITES[write](durable, "token-1")
    assert (await levels(durable)).keys() == before.keys()
    assert await durable.get_document("state") == b"old"
    await WRITES[write](durable, "token-2")


async def test_what_was_written_is_read_back(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    count = 2 * durable.batch + 7
    wanted = {name: (60 + i) * SECOND + i for i, name in enumerate(names(count))}
    every = [BucketLevel(name, level) for name, level in wanted.items()]
    for start in range(0, count, durable.batch):
        await durable.write_buckets(every[start : start + durable.batch], "token-1")
    found = await levels(durable)
    assert found.keys() == wanted.keys()
    assert all(wanted[name] - 30 * SECOND < found[name] <= wanted[name] for name in wanted)


async def test_a_level_is_raised_and_never_lowered(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    (name,) = names(1)
    for level, expected in ((100, 100), (50, 100), (200, 200), (0, 200), (199, 200)):
        await durable.write_buckets([BucketLevel(name, level * SECOND)], "token-1")
        found = (await levels(durable))[name]
        assert (expected - 30) * SECOND < found <= expected * SECOND


async def test_the_highest_of_a_bucket_that_is_named_twice_counts(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    (name,) = names(1)
    twice = [BucketLevel(name, 200 * SECOND), BucketLevel(name, 100 * SECOND)]
    await durable.write_buckets(twice, "token-1")
    assert (await levels(durable))[name] > 150 * SECOND


async def test_full_buckets_are_not_listed(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    first, second, third = names(3)
    given = [BucketLevel(first, 0), BucketLevel(second, 1), BucketLevel(third, 60 * SECOND)]
    await durable.write_buckets(given, "token-1")
    assert set(await levels(durable)) == {third}


async def test_levels_of_two_years_are_kept(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    (name,) = names(1)
    deepest = (1 << 62) - 1
    await durable.write_buckets([BucketLevel(name, deepest)], "token-1")
    assert deepest - 30 * SECOND < (await levels(durable))[name] <= deepest


async def test_a_dropped_bucket_is_gone(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    first, second = names(2)
    await durable.write_buckets([BucketLevel(each, 60 * SECOND) for each in (first, second)], "token-1")
    await durable.drop_buckets([first, *names(20)[2:]], "token-1")
    assert set(await levels(durable)) == {second}


async def test_what_sync_wrote_and_what_callers_take_is_one_bucket(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    name = bucket_of(SLOW, "k")
    await durable.write_buckets([BucketLevel(name, SLOW.cost.of(7))], "token-1")
    assert (await durable.try_consume("k", 0, limit=SLOW)).remaining == 3
    await durable.try_consume("k", 2, limit=SLOW)
    assert (await levels(durable))[name] > SLOW.cost.of(8)
    await durable.write_buckets([BucketLevel(name, SLOW.cost.of(5))], "token-1")
    assert (await durable.try_consume("k", 0, limit=SLOW)).remaining == 1
    await durable.drop_buckets([name], "token-1")
    assert (await durable.try_consume("k", 10, limit=SLOW)).allowed


async def test_a_declared_limit_s_bucket_is_the_packets(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    limit = Limit("logins", SLOW.cost, declared=True, key=ID)
    await durable.try_consume("someone", limit="logins")
    assert set(await levels(durable)) == {bucket_of(limit, "someone")}


async def test_documents_are_kept_whole(durable: Durable) -> None:
    await durable.claim("left", "token-1")
    assert await durable.get_document("state") is None
    for content in (b"", b"\0\xff" * 1000, bytes(9 << 20), b"short"):
        await durable.put_document("state", content, "token-1")
        assert await durable.get_document("state") == content
    assert await durable.get_document("counters") is None


async def test_state_outlives_the_adapter_and_is_the_appliance_s_own(durable_maker: Maker) -> None:
    async with durable_maker() as store:
        first: Durable = store  # type: ignore[assignment]
        await first.claim("left", "token-1")
        await first.write_buckets([BucketLevel(name, 60 * SECOND) for name in names(5)], "token-1")
        await first.put_document("state", b"kept", "token-1")
    async with durable_maker() as store, durable_maker(appliance=f"{APPLIANCE}2") as other_store:
        second: Durable = store  # type: ignore[assignment]
        other: Durable = other_store  # type: ignore[assignment]
        assert (await levels(second)).keys() == set(names(5))
        assert await second.get_document("state") == b"kept"
        await second.renew("token-1")
        assert await levels(other) == {}
        assert await other.get_document("state") is None
        assert await other.owner() is None


async def test_flushing_leaves_documents_and_the_owner(durable_maker: Maker) -> None:
    async with durable_maker(allow_flush=True) as store:
        durable: Durable = store  # type: ignore[assignment]
        await durable.claim("left", "token-1")
        await durable.put_document("state", b"kept", "token-1")
        await durable.write_buckets([BucketLevel(name, 60 * SECOND) for name in names(5)], "token-1")
        assert await durable.flush_all() >= 5
        assert await levels(durable) == {}
        assert await durable.get_document("state") == b"kept"
        await durable.renew("token-1")
