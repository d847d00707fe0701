# SPDX-License-Identifier: Apache-2.0
"""Many callers while a primary is lost: only what was on its way to it fails, the others wait."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.clusters import Cluster, cluster, sentinel
from support.resp import client_for, until
from support.servers import Kind, Server, wait_for
from valkyrie.adapters.errors import (
    OutcomeUnknown,
    StoreConnectionError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.lookout import Lookout

CALLERS = 50
POOL = 10
RECOVERED_S = 5.0
CLUSTER: dict[str, Any] = {"cluster_mode": True}
HUNG = [("redis", False), ("valkey", False), ("valkey", True)]


@dataclass
class Callers:
    """Tasks that call without a pause: INCR of one key, which is not repeatable, and GET of another's."""

    client: RespClient
    key: str
    other: str
    counted: int = 0
    failures: list[tuple[float, StoreError]] = field(default_factory=list)
    served: dict[int, float] = field(default_factory=dict)
    ending: bool = False

    async def call(self, number: int) -> None:
        while not self.ending:
            try:
                if number % 5:
                    await self.client.run("INCR", self.key, repeatable=False)
                    self.counted += 1
                else:
                    await self.client.run("GET", self.other, repeatable=True)
                self.served[number] = time.perf_counter()
            except StoreError as error:
                self.failures.append((time.perf_counter(), error))
            await asyncio.sleep(0)

    async def through(self, lose: Any) -> float:
        """Run while the primary is lost and replaced; seconds until the last caller was served again."""
        tasks = [asyncio.create_task(self.call(number)) for number in range(CALLERS)]
        try:
            await until(lambda: len(self.served) == CALLERS, "all callers served")
            lose()
            began = time.perf_counter()
            await asyncio.sleep(0.05)  # what the primary sent before it was lost is read
            self.served = {}
            await until(lambda: len(self.served) == CALLERS, "all callers served again", 15)
            return max(*self.served.values(), *(at for at, _ in self.failures)) - began
        finally:
            self.ending = True
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert done == [None] * CALLERS


def elsewhere(made: Cluster, dead: Server) -> str:
    return next(f"k{n}" for n in range(100) if made.primary_of(f"k{n}") is not dead)


@pytest.mark.parametrize(("kind", "hangs"), HUNG)
async def test_only_calls_in_flight_fail_when_a_primary_is_lost(kind: Kind, hangs: bool) -> None:
    with cluster(kind) as made:
        async with client_for(kind, made.url, pool_size=POOL, timeout_ms=1000, **CLUSTER) as client:
            await client.run("SET", "n", 0, repeatable=True)
            dead = made.primary_of("n")
            wait_for(lambda: dead.run("WAIT", 1, 100) == 1, "the replica in step")
            callers = Callers(client, "n", elsewhere(made, dead))
            recovered = await callers.through(dead.stop if hangs else dead.kill)
            errors = [error for _, error in callers.failures]
            assert all(isinstance(error, OutcomeUnknown) for error in errors), errors
            assert len(errors) <= POOL
            assert recovered <= RECOVERED_S
            found = int(await client.run("GET", "n", repeatable=True))
            assert found <= callers.counted + len(errors)


@pytest.mark.parametrize(("kind", "hangs"), HUNG)
async def test_only_calls_in_flight_fail_when_sentinels_replace_a_primary(kind: Kind, hangs: bool) -> None:
    with sentinel(kind) as made:
        options: dict[str, Any] = {"sentinel": {"master": "main", "nodes": made.nodes}, "pool_size": POOL}
        async with client_for(kind, f"{kind}://unused:1", **options) as client:
            await client.run("SET", "n", 0, repeatable=True)
            wait_for(lambda: made.replica.run("GET", "n") == b"0", "the replica in step")
            callers = Callers(client, "n", "other")
            recovered = await callers.through(made.primary.stop if hangs else made.primary.kill)
            errors = [error for _, error in callers.failures]
            assert all(isinstance(error, OutcomeUnknown | StoreTimeout) for error in errors), errors
            assert len(callers.failures) <= POOL
            assert recovered <= RECOVERED_S


async def test_nobody_waits_when_no_node_answers() -> None:
    with cluster("valkey") as made:
        options: dict[str, Any] = {**CLUSTER, "timeout_ms": 500}
        async with client_for("valkey", made.url, **options) as client:
            await client.run("SET", "n", 0, repeatable=True)
            for node in made.nodes:
                node.kill()
            began = time.perf_counter()
            for repeatable in (True, False, True):
                with pytest.raises(StoreError):
                    await client.run("INCR", "n", repeatable=repeatable)
            assert time.perf_counter() - began < 1.0


async def test_nobody_waits_where_the_settings_say_so() -> None:
    with cluster("valkey") as made:
        options: dict[str, Any] = {**CLUSTER, "failover_wait_ms": 0}
        async with client_for("valkey", made.url, **options) as client:
            await client.run("SET", "n", 0, repeatable=True)
            made.primary_of("n").kill()
            await asyncio.sleep(0.05)  # until the end of the idle connection has been seen
            began = time.perf_counter()
            with pytest.raises((StoreConnectionError, StoreUnavailable)):
                await client.run("INCR", "n", repeatable=False)
            assert time.perf_counter() - began < 0.5


async def test_a_caller_who_waits_can_be_cancelled_and_takes_nothing() -> None:
    with cluster("valkey") as made:
        async with client_for("valkey", made.url, **CLUSTER) as client:
            await client.run("SET", "n", 0, repeatable=True)
            dead = made.primary_of("n")
            wait_for(lambda: dead.run("WAIT", 1, 100) == 1, "the replica in step")
            dead.kill()
            await asyncio.sleep(0.05)
            waiting = asyncio.create_task(client.run("INCR", "n", repeatable=False))
            _, pending = await asyncio.wait([waiting], timeout=0.3)
            assert pending
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
            assert await client.run("INCR", "n", repeatable=False) == 1


async def test_of_those_who_wait_one_tries_after_each_look_until_one_is_served() -> None:
    looked = tries = 0
    answering = asyncio.Event()

    async def look() -> None:
        nonlocal looked
        looked += 1

    async def call(lookout: Lookout) -> bool:
        nonlocal tries
        while await lookout.wait("a"):
            tries += 1
            if answering.is_set():
                lookout.served("a")
                return True
        return False

    lookout = Lookout(look, 30)
    calls = [asyncio.create_task(call(lookout)) for _ in range(CALLERS)]
    await until(lambda: looked > 2, "looks")
    assert tries <= looked
    before = tries
    answering.set()
    assert await asyncio.gather(*calls) == [True] * CALLERS
    assert tries <= before + CALLERS
    assert lookout.waiting == 0
    await lookout.close()


async def test_an_outage_that_lasts_is_waited_for_once() -> None:
    async def look() -> None:
        """Somebody answers, and names nobody new."""

    async def call(lookout: Lookout) -> None:
        while await lookout.wait("a"):
            pass

    lookout = Lookout(look, 0.5)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await call(lookout)
    assert loop.time() - began >= 0.49
    began = loop.time()
    await call(lookout)
    assert loop.time() - began < 0.1
    await lookout.close()


async def test_those_who_wait_are_told_when_nobody_answers_any_more() -> None:
    async def look() -> None:
        raise StoreConnectionError("nobody")

    lookout = Lookout(look, 30)
    assert await asyncio.wait_for(lookout.wait("a"), 1) is False
    assert await asyncio.wait_for(lookout.wait("a"), 1) is False
    await lookout.close()
