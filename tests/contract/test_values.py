# SPDX-License-Identifier: Apache-2.0
"""Values of every store: what was set is read, expires to the millisecond, and is bounded."""

import asyncio
import time
from enum import IntEnum
from math import inf, nan
from typing import Any

import pytest

from support.contract import APPLIANCE, Maker
from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.store import MAX_VALUE_BYTES, Feature, StoreAdapter
from valkyrie.control.errors import InvalidInput, NotFound

LAST = (1 << 63) - 1
HOSTILE_KEYS = [
    "k",
    "\0",
    "a\0b",
    "ключ 🗝",
    "{tag}x",
    "}{",
    "a b\r\nSET x y\r\n",
    "*",
    "' OR 1=1 --",
    "k" * 1024,
    "é" * 512,
]


async def test_a_value_is_read_as_it_was_set(store: StoreAdapter) -> None:
    for value in (b"", b"\0", bytes(range(256)), b"x" * 1000, b"12"):
        await store.set("k", value)
        assert await store.get("k") == value


async def test_what_was_never_set_is_none(store: StoreAdapter) -> None:
    assert await store.get("k") is None
    assert not await store.exists("k")
    assert not await store.delete("k")
    with pytest.raises(NotFound):
        await store.ttl("k")


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=range(len(HOSTILE_KEYS)))
async def test_any_text_is_a_key(store: StoreAdapter, key: str) -> None:
    await store.set(key, b"1")
    await store.set(f"x{key}"[:500], b"2")
    assert await store.get(key) == b"1"
    assert await store.exists(key)
    assert await store.ttl(key) is None
    assert await store.delete(key)
    assert not await store.exists(key)
    assert await store.increment(key) == 1


@pytest.mark.parametrize(
    "key", ["", "k" * 1025, "é" * 513, "\ud800", 5], ids=["empty", "long", "bytes", "lone", "int"]
)
async def test_what_is_no_key_is_refused_by_every_operation(store: StoreAdapter, key: Any) -> None:
    for refused in (
        store.get(key),
        store.set(key, b""),
        store.delete(key),
        store.exists(key),
        store.ttl(key),
        store.increment(key),
    ):
        with pytest.raises(InvalidInput):
            await refused


@pytest.mark.parametrize("value", [5, "text", None, [1, 2]], ids=["int", "text", "none", "list"])
async def test_what_is_no_value_is_refused(store: StoreAdapter, value: Any) -> None:
    with pytest.raises(InvalidInput):
        await store.set("k", value)
    assert not await store.exists("k")


@pytest.mark.parametrize("amount", [1.5, "1", None], ids=["float", "text", "none"])
async def test_what_is_no_amount_is_refused_at_once(store: StoreAdapter, amount: Any) -> None:
    with pytest.raises(InvalidInput):
        await store.increment("k", amount)
    assert not await store.exists("k")


class _Step(IntEnum):
    TWO = 2


async def test_an_amount_may_be_an_enumeration_s(store: StoreAdapter) -> None:
    assert await store.increment("k", _Step.TWO) == 2


async def test_a_value_of_a_mebibyte_fits_and_no_more(maker: Maker, store: StoreAdapter) -> None:
    largest = 1024 if store.backend_name == "yggdrasil" else MAX_VALUE_BYTES
    value = b"v" * largest
    await store.set("k", value)
    assert await store.get("k") == value
    with pytest.raises(InvalidInput):
        await store.set("k", value + b"v")
    assert await store.get("k") == value


async def test_a_value_goes_at_its_time_and_not_before(store: StoreAdapter) -> None:
    began = time.monotonic()
    await store.set("k", b"v", ttl=0.25)
    set_by = time.monotonic()
    while True:
        asked = time.monotonic()
        there = await store.exists("k")
        answered = time.monotonic()
        if not there:
            break
        assert asked < set_by + 0.25 + 0.002
        await asyncio.sleep(0.002)
    assert answered > began + 0.25 - 0.002
    assert await store.get("k") is None
    assert not await store.delete("k")
    with pytest.raises(NotFound):
        await store.ttl("k")


async def test_the_ttl_is_told_to_the_millisecond(store: StoreAdapter) -> None:
    began = time.monotonic()
    await store.set("k", b"v", ttl=30.5)
    left = await store.ttl("k")
    took = time.monotonic() - began
    assert left is not None
    assert 30.5 - took - 0.002 <= left <= 30.501


async def test_setting_anew_forgets_the_old_ttl(store: StoreAdapter) -> None:
    await store.set("k", b"v", ttl=30)
    await store.set("k", b"w")
    assert await store.ttl("k") is None
    await store.set("k", b"x", ttl=40)
    left = await store.ttl("k")
    assert left is not None
    assert left > 30


@pytest.mark.parametrize("ttl", [0, -1, -0.001, inf, nan, 1e18])
async def test_a_ttl_that_is_none_is_refused(store: StoreAdapter, ttl: float) -> None:
    for refused in (store.set("k", b"v", ttl=ttl), store.increment("k", ttl=ttl)):
        with pytest.raises(InvalidInput):
            await refused
    assert not await store.exists("k")


async def test_increments_add_up(store: StoreAdapter) -> None:
    assert await store.increment("k") == 1
    assert await store.increment("k", 41) == 42
    assert await store.increment("k", -50) == -8
    assert await store.increment("k", 0) == -8
    assert await store.get("k") == b"-8"


async def test_what_was_set_can_be_added_to_unless_the_store_cannot_read_it(store: StoreAdapter) -> None:
    await store.set("k", b"7", ttl=30)
    if store.supports_feature(Feature.ENCRYPTION):
        with pytest.raises(ConsistencyError):
            await store.increment("k")
        assert await store.get("k") == b"7"
    else:
        assert await store.increment("k") == 8
        left = await store.ttl("k")
        assert left is not None
        assert 25 < left <= 30.001


async def test_an_increment_sets_the_ttl_only_of_a_new_value(store: StoreAdapter) -> None:
    await store.increment("new", ttl=30)
    await store.increment("new", ttl=300)
    left = await store.ttl("new")
    assert left is not None
    assert 25 < left <= 30.001
    await store.increment("stays")
    await store.increment("stays", ttl=30)
    assert await store.ttl("stays") is None


async def test_an_increment_begins_anew_after_expiry(store: StoreAdapter) -> None:
    await store.increment("k", 5, ttl=0.03)
    deadline = time.monotonic() + 5
    while await store.exists("k"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    assert await store.increment("k", 2) == 2
    assert await store.ttl("k") is None


@pytest.mark.parametrize(("start", "amount"), [(LAST, 1), (-LAST - 1, -1), (1, LAST)])
async def test_a_sum_beyond_64_bits_is_refused_and_changes_nothing(
    store: StoreAdapter, start: int, amount: int
) -> None:
    await store.set("k", str(start).encode())
    with pytest.raises(ConsistencyError):
        await store.increment("k", amount)
    with pytest.raises(ConsistencyError):
        await store.increment("k", amount, ttl=30)
    assert await store.get("k") == str(start).encode()


async def test_the_whole_range_of_64_bits_can_be_counted(store: StoreAdapter) -> None:
    assert await store.increment("k", LAST) == LAST
    assert await store.increment("k", -LAST) == 0
    assert await store.increment("k", -LAST - 1) == -LAST - 1
    assert await store.increment("new", LAST, ttl=30) == LAST
    for amount in (LAST + 1, -LAST - 2):
        with pytest.raises(InvalidInput):
            await store.increment("k", amount)


@pytest.mark.parametrize("value", [b"x", b"1.5", b" 1", b"1 ", b"1e3", b"\xff", b"9223372036854775808"])
async def test_adding_to_what_is_no_integer_is_refused(store: StoreAdapter, value: bytes) -> None:
    await store.set("k", value)
    with pytest.raises(ConsistencyError):
        await store.increment("k")
    with pytest.raises(ConsistencyError):
        await store.increment("k", ttl=30)
    assert await store.get("k") == value


async def test_concurrent_increments_are_all_counted(store: StoreAdapter) -> None:
    sums = await asyncio.gather(*(store.increment("k") for _ in range(300)))
    assert sorted(sums) == list(range(1, 301))


async def test_two_adapters_see_the_same_values(maker: Maker, store: StoreAdapter) -> None:
    async with maker() as other:
        await store.set("k", b"v")
        assert await other.get("k") == b"v"
        assert await other.delete("k")
        assert await store.get("k") is None


async def test_appliances_do_not_meet(maker: Maker, store: StoreAdapter) -> None:
    async with maker(appliance=f"{APPLIANCE}.2") as other:
        await store.set("k", b"v")
        assert await other.get("k") is None
        assert not await other.delete("k")
        assert await store.get("k") == b"v"


async def test_a_value_outlives_the_adapter(maker: Maker) -> None:
    async with maker() as first:
        await first.set("k", b"v")
    async with maker() as second:
        assert await second.get("k") == b"v"
