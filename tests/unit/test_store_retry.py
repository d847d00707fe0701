# SPDX-License-Identifier: Apache-2.0
"""Repeating calls, with sleep and randomness that the test holds."""

from __future__ import annotations

import pytest

from valkyrie.adapters.errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    StoreConnectionError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from valkyrie.adapters.resp.retry import BASE_S, CAP_S, Retry


class World:
    """Time that passes by sleeping; an attempt fails as often as told."""

    def __init__(self, *failures: StoreError, random: float = 1.0) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.failures = list(failures)
        self.attempts = 0
        self.random = random

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def attempt(self) -> str:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    def retry(self, times: int) -> Retry:
        return Retry(times, self.sleep, lambda: self.random, lambda: self.now)


async def test_what_fails_for_a_moment_is_repeated_with_doubling_waits() -> None:
    world = World(StoreConnectionError("a"), StoreTimeout("b"), StoreUnavailable("c"))
    assert await world.retry(3).call(world.attempt, deadline=10) == "done"
    assert world.slept == [BASE_S, 2 * BASE_S, 4 * BASE_S]


async def test_the_wait_is_anything_from_nothing_to_its_bound() -> None:
    world = World(StoreConnectionError("a"), StoreConnectionError("b"), random=0.0)
    await world.retry(3).call(world.attempt, deadline=10)
    assert world.slept == [0.0, 0.0]


async def test_no_wait_is_longer_than_the_cap() -> None:
    world = World(*[StoreConnectionError("a")] * 10)
    await world.retry(10).call(world.attempt, deadline=100)
    assert max(world.slept) == CAP_S


@pytest.mark.parametrize("error", [AuthenticationFailed("no"), OutcomeUnknown("lost")])
async def test_what_repeating_makes_worse_is_not_repeated(error: StoreError) -> None:
    world = World(error)
    with pytest.raises(type(error)):
        await world.retry(3).call(world.attempt, deadline=10)
    assert world.attempts == 1


async def test_after_so_many_repetitions_the_last_error_is_raised() -> None:
    world = World(*[StoreConnectionError(str(number)) for number in range(9)])
    with pytest.raises(StoreConnectionError, match="2"):
        await world.retry(2).call(world.attempt, deadline=10)
    assert world.attempts == 3


async def test_no_repetition_goes_beyond_the_deadline() -> None:
    world = World(*[StoreConnectionError("a")] * 9)
    with pytest.raises(StoreConnectionError):
        await world.retry(9).call(world.attempt, deadline=3.5 * BASE_S)
    assert world.now <= 3.5 * BASE_S
    assert world.attempts == 3


async def test_with_no_retries_there_is_one_attempt() -> None:
    world = World(StoreConnectionError("a"))
    with pytest.raises(StoreConnectionError):
        await world.retry(0).call(world.attempt, deadline=10)
    assert world.attempts == 1
