# SPDX-License-Identifier: Apache-2.0
"""The embedded store on a disk that fills, and on one that is read-only: a small tmpfs of the test's own."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.embedded import EmbeddedAdapter
from valkyrie.adapters.errors import StoreUnavailable
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.settings import EmbeddedSettings

SLOW = Limit.of("slow", "100/h", "100")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", point], check=True, timeout=20)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True, timeout=20)


def adapter(disk: Path) -> EmbeddedAdapter:
    return EmbeddedAdapter(EmbeddedSettings(path=disk / "store.db"), "edge", StaticBook())


async def fill(store: EmbeddedAdapter, written: list[int]) -> None:
    """Set values until that fails."""
    for i in range(100):
        await store.set(f"k{i}", bytes(50_000))
        written.append(i)


def fill_up(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


async def test_a_full_disk_is_told_and_what_was_acknowledged_stays(disk: Path) -> None:
    written: list[int] = []
    async with adapter(disk) as store:
        with pytest.raises(StoreUnavailable, match="disk is full") as caught:
            await fill(store, written)
        assert written
        assert caught.value.hint
        assert await store.get("k0") == bytes(50_000)
        assert [i for i in range(100) if await store.exists(f"k{i}")] == written
    async with adapter(disk) as store:
        assert [i for i in range(100) if await store.exists(f"k{i}")] == written


async def test_room_that_comes_back_is_used(disk: Path) -> None:
    ballast = disk / "ballast"
    async with adapter(disk) as store:
        await store.try_consume("k", limit=SLOW)
        fill_up(ballast)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await fill(store, [])
        ballast.unlink()
        await store.set("k", bytes(50_000))
        assert (await store.try_consume("k", limit=SLOW)).remaining == 98
        assert (await store.health_check()).ok


async def test_a_full_disk_takes_no_new_file(disk: Path) -> None:
    fill_up(disk / "ballast")
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await adapter(disk).start()


async def test_a_read_only_disk_is_told(disk: Path) -> None:
    async with adapter(disk) as store:
        await store.set("k", b"v")
    command = ["mount", "-o", "remount,ro", str(disk)]
    await asyncio.to_thread(lambda: subprocess.run(command, check=True, timeout=20))
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        await adapter(disk).start()
