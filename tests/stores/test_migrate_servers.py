# SPDX-License-Identifier: Apache-2.0
"""From Redis to Valkey while applications go on: nothing fails, nothing is lost, no limit admits twice; a
daemon that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.migrating import Daemon, apps, daemon, fill, ours, put_foreign, settings_of, side
from support.servers import Server, redis_server, valkey_server

BUCKETS, VALUES = 20_000, 2000


@pytest.fixture
def redis() -> Iterator[Server]:
    with redis_server() as server:
        put_foreign(server)
        yield server


@pytest.fixture
def valkey() -> Iterator[Server]:
    with valkey_server() as server:
        put_foreign(server)
        yield server


def killed_when(runner: Daemon, phase: str) -> dict[str, Any]:
    """Kill it as soon as it is in the phase, and start it again."""
    answer = runner.until(lambda now: now["phase"] == phase)
    runner.kill()
    runner.start()
    return answer


async def test_a_migration_under_load_survives_kill_9_in_each_phase(
    redis: Server, valkey: Server, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, redis, valkey)
    async with side(settings, "redis") as source:
        await fill(source, BUCKETS, VALUES)
    with daemon(settings) as runner, apps(settings, 2) as running:
        runner.good("start", "redis", "valkey")
        runner.until(lambda now: now["doing"] == "copying" and now["done"] > 0)
        runner.kill()
        runner.start()
        runner.until_next("validate")
        runner.good("validate")
        answer = runner.until(lambda now: now["report"] is not None and not now["asked"])
        assert answer["report"]["differences"] == {}, answer
        assert answer["report"]["buckets"] >= BUCKETS
        assert answer["report"]["values"] >= VALUES
        runner.good("cutover")
        killed_when(runner, "switching")
        killed_when(runner, "cutover")
        runner.until_next("cleanup")
        told = [one.end() for one in running]
    assert [one["errors"] for one in told] == [[], []]
    assert all(set(one["stores"]) == {"redis", "valkey"} for one in told)
    assert 0 < sum(one["done"]["scarce"] for one in told) <= 401
    seconds = max(one["seconds"] for one in told)
    steady = sum(one["done"]["steady"] for one in told)
    assert 20 * seconds <= steady <= 40 * seconds + 41
    await check_values(settings, "valkey", told)
    settings_of(tmp_path, redis, valkey, mode="valkey")
    with daemon(settings) as runner:
        runner.until_next("cleanup")
        runner.good("cleanup")
        killed_when(runner, "cleaning")
        runner.until_over()
        assert ours(redis) == []
        assert not [key for key in ours(valkey) if "migration" in key]
        runner.kill()
    async with side(settings, "valkey") as target:
        assert await target.count() >= BUCKETS + VALUES


async def check_values(settings: Path, backend: str, told: list[dict[str, Any]]) -> None:
    """What the applications wrote last is what lies there."""
    async with side(settings, backend) as store:
        (count,) = await store.values(["count"])
        assert getattr(count, "content", None) == str(sum(one["done"]["count"] for one in told)).encode()
        for one in told:
            kept = one["kept"]
            found = await store.values(list(kept))
            there = {
                key: None if value is None else getattr(value, "content", b"").decode()
                for key, value in zip(kept, found, strict=True)
            }
            assert there == kept


async def test_a_target_that_dies_in_the_middle_harms_nobody_and_is_filled_when_it_returns(
    redis: Server, valkey: Server, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, redis, valkey)
    async with side(settings, "redis") as source:
        await fill(source, BUCKETS, VALUES)
    with daemon(settings) as runner, apps(settings, 1) as running:
        runner.good("start", "redis", "valkey")
        runner.until(lambda now: now["doing"] == "copying" and now["done"] > 0)
        valkey.kill()
        runner.until(lambda now: bool(now["problem"]))
        await asyncio.sleep(1)
        valkey.start()
        put_foreign(valkey)
        runner.until_next("validate")
        runner.good("repair")
        runner.until_next("cutover")
        runner.good("validate")
        answer = runner.until(lambda now: not now["asked"])
        assert answer["report"]["differences"] == {}
        assert answer["errors"] > 0
        (told,) = [one.end() for one in running]
    assert told["errors"] == []
    assert set(told["stores"]) == {"redis"}
    assert told["longest"] < 1.0


@pytest.mark.parametrize("phase", ["copying", "cutover"])
async def test_an_abort_leaves_the_target_without_a_key_of_ours_and_the_source_with_all(
    redis: Server, valkey: Server, tmp_path: Path, phase: str
) -> None:
    settings = settings_of(tmp_path, redis, valkey)
    async with side(settings, "redis") as source:
        await fill(source, 2000, 200)
    with daemon(settings) as runner, apps(settings, 2) as running:
        runner.good("start", "redis", "valkey")
        runner.until_next("validate")
        if phase == "cutover":
            runner.good("cutover", "force")
            runner.until_next("cleanup")
        runner.good("abort")
        killed_when(runner, "aborting")
        runner.until_over()
        told = [one.end() for one in running]
        assert ours(valkey) == []
        assert not [key for key in ours(redis) if "migration" in key]
    assert [one["errors"] for one in told] == [[], []]
    assert sum(one["done"]["scarce"] for one in told) <= 402
    await check_values(settings, "redis", told)
    async with side(settings, "redis") as source:
        assert await source.count() >= 2200


async def test_steps_in_the_wrong_order_are_refused_with_the_right_one(
    redis: Server, valkey: Server, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, redis, valkey)
    async with side(settings, "valkey") as target:
        await fill(target, 10, 10)
    with daemon(settings) as runner:
        assert "start SOURCE TARGET" in runner.ask("validate")["what"]
        assert runner.ask("start", "valkey", "redis")["refused"] == "invalid"
        assert "--overwrite" in runner.ask("start", "redis", "valkey")["what"]
        runner.good("start", "redis", "valkey", "overwrite")
        assert runner.ask("start", "redis", "embedded")["refused"] == "conflict"
        assert runner.ask("cleanup")["refused"] == "conflict"
        runner.until_next("validate")
        assert "validate" in runner.ask("cutover")["what"]
        async with side(settings, "valkey") as target:
            assert await target.count() == 0
        runner.good("cutover", "force")
        answer = runner.until_next("cleanup")
        assert answer["change"][1] == "  mode: valkey"
        assert "valkyrie.yaml" in runner.ask("cleanup")["what"]


async def test_source_and_target_on_one_server_are_refused(redis: Server, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, redis, redis)
    with daemon(settings) as runner:
        assert "same server" in runner.ask("start", "redis", "valkey")["what"]


async def test_the_embedded_store_is_left_for_a_server_and_gone_back_to(
    valkey: Server, tmp_path: Path
) -> None:
    settings = settings_of(
        tmp_path, valkey, valkey, mode="embedded", embedded={"path": str(tmp_path / "store.db")}
    )
    async with side(settings, "embedded") as source:
        await fill(source, 1000, 1000)
    with daemon(settings) as runner:
        for _ in range(2):
            runner.good("start", "embedded", "valkey")
            runner.until_next("validate")
            runner.good("validate")
            answer = runner.until_next("cutover")
            assert answer["report"]["buckets"] == answer["report"]["values"] == 1000
            runner.good("cutover")
            runner.until_next("cleanup")
            runner.good("abort")
            runner.until_over()
            assert ours(valkey) == []
        runner.good("start", "embedded", "valkey")
        runner.until_next("validate")
        runner.good("cutover", "force")
        runner.until_next("cleanup")
        runner.good("cleanup", "force")
        runner.until_over()
    async with side(settings, "embedded") as source, side(settings, "valkey") as target:
        assert await source.count() == 0
        assert await target.count() == 2000


async def test_a_forced_abort_goes_back_without_the_target_and_without_the_state_of_the_daemon(
    redis: Server, valkey: Server, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, redis, valkey)
    async with side(settings, "redis") as source:
        await fill(source, 100, 100)
    with daemon(settings) as runner:
        runner.good("start", "redis", "valkey")
        runner.until_next("validate")
        runner.good("cutover", "force")
        runner.until_next("cleanup")
        valkey.kill()
        runner.good("abort")
        runner.until(lambda now: bool(now["problem"]))
        runner.good("abort", "force")
        assert "not emptied" in runner.until_over()["ended"]
        assert not [key for key in ours(redis) if "migration" in key]
        valkey.start()
        put_foreign(valkey)
        runner.good("start", "redis", "valkey", "overwrite")
        runner.until_next("validate")
        runner.kill()
        (tmp_path / "state" / "migration.json").unlink()
        runner.start()
        assert "abort --force" in runner.ask("start", "redis", "valkey")["what"]
        runner.good("abort", "force")
        runner.until_over()
        assert ours(valkey) == []
        assert not [key for key in ours(redis) if "migration" in key]
