# SPDX-License-Identifier: Apache-2.0
"""The embedded store: its file, its bounds, many processes, and what happens to those that are killed."""

# ruff: noqa: ASYNC240 nothing else runs in the loops of these tests

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.embedded import EmbeddedAdapter, writer
from valkyrie.adapters.errors import (
    ConsistencyError,
    StoreConnectionError,
    StoreError,
    StoreUnavailable,
)
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.migrate.side import Value
from valkyrie.adapters.naming import name_of
from valkyrie.adapters.settings import EmbeddedSettings
from valkyrie.adapters.store import Decision
from valkyrie.control.dataplane.keyname import opaque

SLOW = Limit.of("slow", "100/h", "100")


def adapter(path: Path, max_values_mb: int = 64) -> EmbeddedAdapter:
    return EmbeddedAdapter(EmbeddedSettings(path=path, max_values_mb=max_values_mb), "edge", StaticBook())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "store.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[EmbeddedAdapter]:
    async with adapter(path) as started:
        yield started


def program(text: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs an `async def main(store)` on a store of its own."""
    whole = f"""
import asyncio, sys
from pathlib import Path
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.embedded import EmbeddedAdapter
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.settings import EmbeddedSettings
from valkyrie.adapters.store import Decision
SLOW = Limit.of("slow", "100/h", "100")
{textwrap.dedent(text)}
async def run():
    async with EmbeddedAdapter(EmbeddedSettings(path=Path(sys.argv[1])), "edge", StaticBook()) as store:
        await main(store)
asyncio.run(run())
"""
    command = [sys.executable, "-c", whole, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("acknowledged", [1, 7, 40])
async def test_what_was_acknowledged_survives_a_killed_process(path: Path, acknowledged: int) -> None:
    child = program(
        """
        async def main(store):
            for i in range(95):
                await store.set(f"k{i}", str(i).encode())
                assert (await store.try_consume("k", limit=SLOW)).allowed
                print(i, flush=True)
            await asyncio.sleep(60)
        """,
        path,
    )
    assert child.stdout is not None
    try:
        told = [int(child.stdout.readline()) for _ in range(acknowledged)]
    finally:
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.stdout.close()
        child.wait(20)
    told += [int(line) for line in rest.split()]
    async with adapter(path) as store:
        assert [await store.get(f"k{i}") for i in told] == [str(i).encode() for i in told]
        left = (await store.try_consume("k", 0, limit=SLOW)).remaining
        assert 100 - len(told) - 1 <= left <= 100 - len(told)


async def test_processes_that_share_a_file_take_the_burst_and_no_more(path: Path) -> None:
    text = """
        async def main(store):
            answers = []
            for _ in range(10):
                answers += await asyncio.gather(*(store.try_consume("k", limit=SLOW) for _ in range(5)))
                await store.increment("n")
            print(sum(answer.allowed for answer in answers))
        """
    children = [program(text, path) for _ in range(4)]
    try:
        taken = [int(child.communicate(timeout=60)[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert sum(taken) == 100
    async with adapter(path) as store:
        assert await store.get("n") == b"40"


async def test_no_one_else_may_read_the_file(store: EmbeddedAdapter, path: Path) -> None:
    await store.set("k", b"v")
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["store.db", "store.db-shm", "store.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    async with adapter(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    async with adapter(path) as store:
        await store.set("k", b"v")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    content = path.read_bytes()
    with pytest.raises(ConsistencyError, match="later Valkyrie"):
        await adapter(path).start()
    assert path.read_bytes() == content


async def test_another_program_s_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    content = path.read_bytes()
    with pytest.raises(ConsistencyError, match="another program"):
        await adapter(path).start()
    assert path.read_bytes() == content


async def test_what_is_no_database_is_told_as_damaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(ConsistencyError, match="damaged"):
        await adapter(path).start()


async def test_a_damaged_page_is_found_when_the_file_is_opened(path: Path) -> None:
    async with adapter(path) as store:
        await store.try_consume_many([])
        for i in range(200):
            await store.set(f"k{i}", b"v" * 500)
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(os.urandom(16 * 4096))
    with pytest.raises(ConsistencyError, match="damaged") as caught:
        await adapter(path).start()
    assert "move it away" in caught.value.hint


async def test_damage_under_way_is_an_error_and_not_a_crash(path: Path) -> None:
    async with adapter(path) as store:
        for i in range(500):
            await store.set(f"k{i}", b"v" * 3000)
    async with adapter(path) as store:
        assert store._file._writer is not None
        store._file._writer._connection.execute("PRAGMA shrink_memory")  # what opening has read
        with path.open("r+b") as file:
            file.seek(16 * 4096)
            file.write(os.urandom(path.stat().st_size - 20 * 4096))
        results = await asyncio.gather(*(store.get(f"k{i}") for i in range(500)), return_exceptions=True)
        failed = [each for each in results if isinstance(each, BaseException)]
        assert failed
        assert all(isinstance(each, StoreError) for each in failed)


async def test_a_path_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreConnectionError, match=r"file/store\.db"):
        await adapter(tmp_path / "file" / "store.db").start()


async def test_a_store_that_was_not_started_says_so(path: Path) -> None:
    with pytest.raises(StoreConnectionError, match="not open"):
        await adapter(path).get("k")


async def test_health_notices_that_the_file_was_replaced(store: EmbeddedAdapter, path: Path) -> None:
    assert (await store.health_check()).ok
    path.unlink()
    assert not (await store.health_check()).ok
    path.touch()
    health = await store.health_check()
    assert not health.ok
    assert "another file" in health.detail


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
