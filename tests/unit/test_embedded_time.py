# SPDX-License-Identifier: Apache-2.0
"""Time of the embedded store: exact expiry, sweeping, and what steps of the clock and boots do."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.embedded import EmbeddedAdapter
from valkyrie.adapters.embedded.clock import SEEN_EVERY, HostClock
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.settings import EmbeddedSettings

SECOND = 1_000_000_000
MINUTE = Limit.of("minute", "10/m", "10")  # a token comes back every six seconds


@dataclass
class Host:
    """A machine whose clocks the test moves."""

    path: Path
    wall: int = 1_800_000_000 * SECOND
    up: int = 100 * SECOND
    boot: str = "first"

    def open(self) -> EmbeddedAdapter:
        clock = HostClock(lambda: self.wall, lambda: self.up, lambda: self.boot)
        return EmbeddedAdapter(EmbeddedSettings(path=self.path), "edge", StaticBook(), clock=clock)

    def wait(self, ns: int) -> None:
        self.wall += ns
        self.up += ns

    def reboot(self, wall: int) -> None:
        self.wall = wall
        self.up = 5 * SECOND
        self.boot += "'"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "store.db")


async def left(store: EmbeddedAdapter) -> int:
    return (await store.try_consume("k", 0, limit=MINUTE)).remaining


async def test_a_token_comes_back_at_its_nanosecond(host: Host) -> None:
    async with host.open() as store:
        await store.try_consume("k", 10, limit=MINUTE)
        host.wait(6 * SECOND - 1)
        assert await left(store) == 0
        host.wait(1)
        assert await left(store) == 1


async def test_a_value_goes_at_its_millisecond(host: Host) -> None:
    async with host.open() as store:
        await store.set("k", b"v", ttl=1.5)
        host.wait(1_500_000_000 - 1)
        assert await store.get("k") == b"v"
        assert await store.ttl("k") == pytest.approx(1e-9)
        host.wait(1)
        assert await store.get("k") is None
        assert await store.increment("k") == 1


@pytest.mark.parametrize("step", [-(10**6) * SECOND, -SECOND, SECOND, 10**6 * SECOND])
async def test_a_step_of_the_wall_clock_changes_nothing(host: Host, step: int) -> None:
    async with host.open() as store:
        await store.try_consume("k", 10, limit=MINUTE)
        await store.set("v", b"v", ttl=60)
        host.wall += step
        host.wait(12 * SECOND)
        assert await left(store) == 2
        async with host.open() as later:  # a process that starts after the step
            assert await left(later) == 2
            assert await later.ttl("v") == 48


async def test_the_time_that_the_host_was_down_counts(host: Host) -> None:
    async with host.open() as store:
        await store.try_consume("k", 10, limit=MINUTE)
    host.reboot(host.wall + 18 * SECOND)
    async with host.open() as store:
        assert await left(store) == 3


async def test_a_boot_with_a_clock_set_back_goes_on_where_time_was_last_seen(host: Host) -> None:
    async with host.open() as store:
        host.wait(SEEN_EVERY - 1)
        await store.try_consume("k", 10, limit=MINUTE)
        await store.set("v", b"v", ttl=60)
    host.reboot(0)
    async with host.open() as store:
        assert await left(store) == 0
        host.wait(60 * SECOND + SEEN_EVERY)
        assert await left(store) == 10
        assert await store.get("v") is None


async def test_time_that_was_seen_is_kept_to_a_second(host: Host) -> None:
    async with host.open() as store:
        for _ in range(20):
            host.wait(10 * SECOND)
            await store.try_consume("k", limit=MINUTE)
        await store.try_consume("k", 10, limit=MINUTE)
    host.reboot(0)
    async with host.open() as store:
        answer = await store.try_consume("k", 10, limit=MINUTE)
        assert answer.retry_after <= 60 + 1


async def test_a_wall_clock_of_another_age_leaves_times_that_fit(host: Host) -> None:
    host.wall = (1 << 63) - 1
    deep = Limit.of("deep", "1/h", "19000")
    async with host.open() as store:
        assert (await store.try_consume("k", 19000, limit=deep)).allowed
        assert not (await store.try_consume("k", limit=deep)).allowed


def rows(host: Host, table: str) -> int:
    import sqlite3

    database = sqlite3.connect(host.path)
    (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    database.close()
    return int(count)


async def test_what_has_expired_is_swept_while_others_write(host: Host) -> None:
    async with host.open() as store:
        for start in range(0, 2000, 500):
            numbers = range(start, start + 500)
            await asyncio.gather(*(store.try_consume(f"k{i}", limit=MINUTE) for i in numbers))
            await asyncio.gather(*(store.set(f"k{i}", b"v", ttl=1) for i in numbers))
        assert rows(host, "buckets") == rows(host, "contents") == 2000
        host.wait(60 * SECOND)
        for _ in range(50):
            await asyncio.gather(*(store.try_consume("busy", limit=MINUTE) for _ in range(50)))
        assert rows(host, "buckets") == 1
        assert rows(host, "contents") == 0


async def test_sweeping_keeps_what_still_counts(host: Host) -> None:
    async with host.open() as store:
        await store.try_consume("k", 10, limit=MINUTE)
        await store.set("stays", b"v")
        await store.set("later", b"v", ttl=100)
        host.wait(59 * SECOND)
        for _ in range(30):
            await asyncio.gather(*(store.try_consume("busy", limit=MINUTE) for _ in range(50)))
        assert await left(store) == 9
        assert await store.get("stays") == await store.get("later") == b"v"
