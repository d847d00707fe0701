# SPDX-License-Identifier: Apache-2.0
"""Calls that wait share one call, and nobody notices."""

import asyncio

import pytest

from support.connected import connected
from support.servers import Server
from valkyrie.adapters.errors import ConsistencyError, StoreError, StoreUnavailable
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import bucket_key
from valkyrie.adapters.resp.coalesce import Coalescer
from valkyrie.adapters.resp.consume import Consumer, Taking
from valkyrie.adapters.store import Decision

SLOW = Limit.of("slow", "1/h", "1000").cost
DEADLINE = 20.0


def taking(number: int, n: int = 1) -> Taking:
    return Taking(f"slow:0000{number:032x}", SLOW, n)


def calls(server: Server) -> int:
    """Script calls that the server has run."""
    lines = server.run("INFO", "COMMANDSTATS").decode().splitlines()
    stats = [line for line in lines if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in stats)


async def left(consumer: Consumer, number: int) -> int:
    (found,) = await consumer.take([taking(number, 0)])
    assert isinstance(found, Decision)
    return found.remaining


async def test_of_a_hundred_tasks_no_more_than_the_burst_is_admitted(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        coalescer = Coalescer(Consumer(client, "edge", "redis"))

        async def ask() -> int:
            return sum([(await coalescer.take(taking(1))).allowed for _ in range(15)])

        before = calls(resp_server)
        admitted = await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(100))), DEADLINE)
        assert sum(admitted) == 1000
        assert calls(resp_server) - before < 300  # of 1,500


async def test_each_gets_its_own_answer(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        coalescer = Coalescer(Consumer(client, "edge", "redis"))
        asked = (coalescer.take(taking(number, number)) for number in range(700))
        decisions = await asyncio.wait_for(asyncio.gather(*asked), DEADLINE)
    assert [decision.remaining for decision in decisions] == [1000 - number for number in range(700)]


async def test_whoever_is_cancelled_before_it_is_sent_takes_nothing(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        consumer = Consumer(client, "edge", "redis")
        coalescer = Coalescer(consumer)
        tasks = [asyncio.create_task(coalescer.take(taking(1))) for _ in range(10)]
        await asyncio.sleep(0)  # they wait; the worker has not begun
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), DEADLINE)
        assert [isinstance(outcome, Decision) for outcome in done] == [False, True] * 5
        assert await left(consumer, 1) == 995


async def test_whoever_is_cancelled_under_way_takes_once_and_harms_nobody(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        consumer = Consumer(client, "edge", "redis")
        coalescer = Coalescer(consumer)
        await consumer.take([taking(0)])  # the server knows the script
        before = calls(resp_server)
        resp_server.stop()
        try:
            tasks = [asyncio.create_task(coalescer.take(taking(1))) for _ in range(10)]
            for _ in range(20):  # the batch is on its way
                await asyncio.sleep(0.005)
            tasks[3].cancel()
            await asyncio.sleep(0)
        finally:
            resp_server.cont()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), DEADLINE)
        assert [isinstance(outcome, Decision) for outcome in done] == [True] * 3 + [False] + [True] * 6
        assert (await left(consumer, 1), calls(resp_server) - before) == (990, 2)


async def test_a_bad_value_fails_its_own_callers_only(resp_server: Server) -> None:
    resp_server.run("SET", bucket_key("edge", taking(2).bucket), "spoilt")
    async with connected(resp_server) as client:
        coalescer = Coalescer(Consumer(client, "edge", "redis"))
        asked = (coalescer.take(taking(number % 3)) for number in range(30))
        done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), DEADLINE)
    expected = [ConsistencyError if number % 3 == 2 else Decision for number in range(30)]
    assert [type(outcome) for outcome in done] == expected


async def test_a_lost_server_answers_everyone(resp_server: Server) -> None:
    async with connected(resp_server, timeout_ms=200) as client:
        coalescer = Coalescer(Consumer(client, "edge", "redis"))
        resp_server.stop()
        try:
            asked = (coalescer.take(taking(number)) for number in range(400))
            done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), DEADLINE)
        finally:
            resp_server.cont()
    assert all(isinstance(outcome, StoreError) for outcome in done)


async def test_too_many_waiting_are_refused_at_once(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        coalescer = Coalescer(Consumer(client, "edge", "redis"), max_waiting=50)
        asked = (coalescer.take(taking(1)) for _ in range(80))
        done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), DEADLINE)
    assert sum(isinstance(outcome, Decision) for outcome in done) == 50
    assert sum(isinstance(outcome, StoreUnavailable) for outcome in done) == 30


async def test_a_bug_below_reaches_every_caller() -> None:
    class Broken(Consumer):
        def __init__(self) -> None: ...

        def group_of(self, bucket: str) -> int:
            return 0

        async def take(self, takings: object) -> list[Decision | StoreError]:
            raise ZeroDivisionError

    coalescer = Coalescer(Broken())
    asked = (coalescer.take(taking(1)) for _ in range(3))
    done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), DEADLINE)
    assert [type(outcome) for outcome in done] == [ZeroDivisionError] * 3


async def test_close_waits_for_answers_under_way(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        coalescer = Coalescer(Consumer(client, "edge", "redis"))
        task = asyncio.create_task(coalescer.take(taking(1)))
        await asyncio.sleep(0)
        await asyncio.wait_for(coalescer.close(), DEADLINE)
        assert (await asyncio.wait_for(task, 1)).allowed


async def test_a_worker_that_is_cancelled_leaves_nobody_waiting(resp_server: Server) -> None:
    async with connected(resp_server) as client:
        coalescer = Coalescer(Consumer(client, "edge", "redis"))
        tasks = [asyncio.create_task(coalescer.take(taking(1))) for _ in range(3)]
        await asyncio.sleep(0)
        (lane,) = coalescer._lanes.values()
        assert lane.worker is not None
        lane.worker.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, DEADLINE)
