# SPDX-License-Identifier: Apache-2.0
"""The file of the embedded store: rights, versions, damage, many processes, and those that are killed."""

# ruff: noqa: ASYNC240 nothing else runs in the loops of these tests

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.embedded import (
    SLOW,
    adapter,
    embedded_path,  # noqa: F401 pytest finds fixtures by name
    embedded_store,  # noqa: F401 pytest finds fixtures by name
)
from valkyrie.adapters.embedded import EmbeddedAdapter
from valkyrie.adapters.errors import ConsistencyError, StoreConnectionError, StoreError


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
