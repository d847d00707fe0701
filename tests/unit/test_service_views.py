# SPDX-License-Identifier: Apache-2.0
"""What people are shown: audit, rates, live events; and settings read again."""

import asyncio
from typing import Any

import pytest

from support.workbench import ADMIN, WEB, Bench
from valkyrie.control.audit import Actor
from valkyrie.control.config import Settings
from valkyrie.control.errors import Conflict, InvalidInput
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.events import QUEUE, Hub


async def test_every_change_is_in_the_audit_log_and_a_failed_one_is_not(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    with pytest.raises(InvalidInput):
        await bench.service.limits.put(ADMIN, "web", {**WEB, "rate": "many"})
    await bench.service.guards.put(Actor(1000, "ann", 7), "ban", "198.51.100.7", None, "flood")
    newest, first = (await bench.service.views.audit(10))["audit"]
    assert (newest["user"], newest["pid"], newest["action"]) == ("ann", 7, "ban.set")
    assert newest["target"] == "198.51.100.7/32"
    assert (first["user"], first["action"], first["target"]) == ("root", "limit.set", "web")
    assert first["detail"]["rate"] == "1000/s"


async def test_reload_puts_in_force_what_can_change_and_names_the_rest(bench: Bench) -> None:
    table = bench.settings.table.model_copy(update={"buckets": 4096, "full": "open"})
    wanted = replace_settings(bench.settings, malformed="pass", group="other", table=table)
    assert await bench.service.reload(wanted) == ["group", "table.buckets"]
    assert bench.engine.in_force.header["malformed_drop"] == 0
    assert bench.engine.in_force.header["table_full_open"] == 1
    assert bench.service.core.settings.group == "valkyrie"


def replace_settings(settings: Settings, **fields: Any) -> Settings:
    return settings.model_copy(update=fields)


async def test_rates_come_from_two_samples_and_survive_a_zeroed_slot(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    slot = bench.service.core.world.allotment.slots["web"].slot
    bench.engine.counters[slot]["matched"] = 100
    await bench.service.views.top(5)
    bench.engine.counters[slot]["matched"] = 300
    bench.time.now += 2
    (row,) = (await bench.service.views.top(5))["limits"]
    assert row["matched_per_s"] == 100
    bench.engine.counters[slot]["matched"] = 50
    bench.time.now += 1
    (row,) = (await bench.service.views.top(5))["limits"]
    assert row["matched_per_s"] == 50


async def test_a_slow_follower_is_told_what_it_lost_and_holds_up_nobody() -> None:
    hub = Hub(Clock())
    slow, quick = hub.join(), hub.join()
    seen: list[Any] = []

    async def read(follower: Any) -> list[Any]:
        return [event async for event in follower]

    reading = asyncio.ensure_future(read(quick))
    for n in range(QUEUE + 10):
        hub.publish({"n": n})
        if n % 100 == 0:
            await asyncio.sleep(0)
    late = asyncio.ensure_future(read(slow))
    while not seen and not late.done():
        await asyncio.sleep(0)
        if not slow._queue.qsize():
            break
    hub.close()
    got = await late
    assert [event["n"] for event in got if "n" in event] == list(range(QUEUE))
    assert [event["lost"] for event in got if "lost" in event] == [10]
    assert [event["n"] for event in await reading] == list(range(QUEUE + 10))


async def test_followers_are_bounded() -> None:
    hub = Hub(Clock())
    joined = [hub.join() for _ in range(64)]
    with pytest.raises(Conflict):
        hub.join()
    hub.leave(joined[0])
    joined[0] = hub.join()
    with pytest.raises(Conflict):
        hub.join()
    joined.clear()
    for _ in range(65):
        hub.join()  # a reader who hung up before the stream began holds no place
