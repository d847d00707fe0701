# SPDX-License-Identifier: Apache-2.0
"""Calls on the embedded store at once: locks, bounds, cancelled callers, closing; one harms no other."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from support.embedded import (
    SLOW,
    adapter,
    embedded_path,  # noqa: F401 pytest finds fixtures by name
    embedded_store,  # noqa: F401 pytest finds fixtures by name
)
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.embedded import EmbeddedAdapter, writer
from valkyrie.adapters.errors import ConsistencyError, StoreConnectionError, StoreUnavailable
from valkyrie.adapters.migrate.side import Value
from valkyrie.adapters.naming import name_of
from valkyrie.adapters.store import Decision
from valkyrie.control.dataplane.keyname import opaque


async def test_another_s_lock_delays_calls_and_not_the_loop(
    store: EmbeddedAdapter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(store.set("k", b"v"))
    loop = asyncio.get_running_loop()
    longest, before = 0.0, loop.time()
    for _ in range(30):
        await asyncio.sleep(0.01)
        longest, before = max(longest, loop.time() - before), loop.time()
    assert not waiting.done()
    assert longest < 1
    other.execute("COMMIT")
    await waiting
    other.execute("BEGIN IMMEDIATE")
    refused, read = await asyncio.gather(store.set("k", b"w"), store.get("k"), return_exceptions=True)
    assert isinstance(refused, StoreUnavailable)
    assert "another process" in str(refused)
    assert read == b"v"
    other.execute("COMMIT")
    other.close()
    await store.set("k", b"w")


async def test_concurrent_calls_share_transactions(store: EmbeddedAdapter) -> None:
    before = int(store.stats().extra["transactions"])
    await asyncio.gather(*(store.try_consume("k", limit=SLOW) for _ in range(1000)))
    assert int(store.stats().extra["transactions"]) - before < 200


async def test_a_call_that_fails_takes_none_of_its_transaction_with_it(store: EmbeddedAdapter) -> None:
    await store.set("word", b"x")
    results = await asyncio.gather(
        store.increment("n"), store.increment("word"), store.increment("n"), return_exceptions=True
    )
    assert (results[0], type(results[1]), results[2]) == (1, ConsistencyError, 2)


async def test_a_full_file_refuses_what_needs_room_and_serves_the_rest(store: EmbeddedAdapter) -> None:
    await store.set("k", b"v")
    await store.try_consume("k", limit=SLOW)
    assert store._file._writer is not None
    bound = store._file._writer._connection
    (pages,) = bound.execute("PRAGMA page_count").fetchone()
    bound.execute(f"PRAGMA max_page_count = {pages}")
    results = await asyncio.gather(
        store.get("k"),
        store.set("large", bytes(1 << 20)),
        store.try_consume("k", limit=SLOW),
        return_exceptions=True,
    )
    assert results[0] == b"v"
    assert isinstance(results[1], StoreUnavailable)
    assert "full" in str(results[1])
    assert not isinstance(results[2], BaseException)
    assert results[2].remaining == 98
    bound.execute("PRAGMA max_page_count = 100000")
    await store.set("large", bytes(1 << 20))


async def test_values_stay_within_their_bound(path: Path) -> None:
    async with adapter(path, max_values_mb=1) as store:
        for i in range(7):
            await store.set(f"k{i}", bytes(140_000))
        with pytest.raises(StoreUnavailable, match="max_values_mb"):
            await store.set("more", bytes(140_000))
        assert await store.get("more") is None
        await store.set("k3", bytes(200_000))  # in the place of another
        with pytest.raises(StoreUnavailable):
            await store.set("k3", bytes(250_000))
        assert await store.get("k3") == bytes(200_000)
        assert (await store.try_consume("k", limit=SLOW)).allowed
        await store.delete("k0")
        await store.set("more", bytes(100_000))


async def test_expired_values_make_room(path: Path) -> None:
    async with adapter(path, max_values_mb=1) as store:
        for i in range(7):
            await store.set(f"k{i}", bytes(140_000), ttl=0.001)
        await asyncio.sleep(0.01)
        await store.set("more", bytes(1_000_000))


async def test_a_cancelled_caller_disturbs_no_one(store: EmbeddedAdapter) -> None:
    tasks = [asyncio.ensure_future(store.increment("n")) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 25 <= await store.increment("n") - 1 <= 50


async def test_calls_that_wait_are_bounded(store: EmbeddedAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_JOBS", 5)
    results = await asyncio.gather(*(store.increment("n") for _ in range(50)), return_exceptions=True)
    refused = [each for each in results if isinstance(each, StoreUnavailable)]
    assert len(refused) == 45
    assert await store.increment("n") == 6


async def test_calls_under_way_end_when_the_store_is_closed(path: Path) -> None:
    store = adapter(path)
    await store.start()
    calls = [asyncio.ensure_future(store.increment("n")) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 101))
    with pytest.raises(StoreConnectionError, match="closed"):
        await store.increment("n")


async def test_a_call_waits_for_one_large_write_and_not_for_all(store: EmbeddedAdapter) -> None:
    await store.claim("node", "token")
    level = 3600 * 64_000_000_000
    names = [name_of("web", opaque(str(i))) for i in range(store.batch * 40)]
    done: list[str] = []

    async def write(start: int) -> None:
        batch = [BucketLevel(name, level) for name in names[start : start + store.batch]]
        await store.write_buckets(batch, "token")
        done.append("write")

    writes = [asyncio.ensure_future(write(start)) for start in range(0, len(names), store.batch)]
    await asyncio.sleep(0)
    await store.try_consume("k", limit=SLOW)
    assert len(done) < 20
    await asyncio.gather(*writes)
    assert len(done) == 40


async def test_what_another_store_told_out_of_range_is_cut_and_harms_nobody_beside_it(
    store: EmbeddedAdapter,
) -> None:
    deep = BucketLevel(name_of("web", opaque("a")), 10**16 * 64_000)
    side = store.side()
    _, _, decision = await asyncio.gather(
        side.raise_buckets([deep]),
        side.put_values([("k", Value(b"v", (1 << 63) - 1))]),
        store.try_consume("a", limit=SLOW),
    )
    assert decision is not None
    assert decision.remaining == 99
    assert [bucket.level for bucket in (await side.bucket_page(""))[0]][-1] > 1 << 63
    assert await store.get("k") == b"v"


async def test_a_bug_in_one_call_does_not_fail_those_that_went_with_it(store: EmbeddedAdapter) -> None:
    def wrong(act: writer.Act) -> None:
        act.connection.execute("SELECT ?", (1 << 80,))

    done = await asyncio.gather(
        *(store.try_consume("a", limit=SLOW) for _ in range(3)),
        store._file.run(wrong),
        *(store.try_consume("a", limit=SLOW) for _ in range(3)),
        return_exceptions=True,
    )
    assert isinstance(done.pop(3), OverflowError)
    assert [one.remaining for one in done if isinstance(one, Decision)] == [99, 98, 97, 96, 95, 94]


async def test_a_disk_that_hangs_does_not_keep_the_store_from_being_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "CLOSE_S", 0.1)
    hung, begun = threading.Event(), threading.Event()

    def hang(_: object) -> bool:
        begun.set()
        return hung.wait(30)

    store = adapter(path)
    await store.start()
    under_way = asyncio.create_task(store._file.run(hang))
    assert await asyncio.to_thread(begun.wait, 5)
    try:
        async with asyncio.timeout(5):
            await store.close()
        assert "did not close in 0.1 s" in caplog.text
    finally:
        hung.set()
    assert await under_way
    await store.close()
