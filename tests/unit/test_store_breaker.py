# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker, by a clock that the test moves."""

from __future__ import annotations

import pytest

from valkyrie.adapters.errors import AuthenticationFailed, StoreConnectionError, StoreUnavailable
from valkyrie.adapters.resp.breaker import Breaker

DOWN = StoreConnectionError("no connection")
REFUSED = AuthenticationFailed("wrong password")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("s:1", 3, 5.0, clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.enter()
        breaker.failed(DOWN)


def admitted(breaker: Breaker, callers: int) -> int:
    count = 0
    for _ in range(callers):
        try:
            breaker.enter()
        except StoreUnavailable:
            continue
        count += 1
    return count


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.enter()
    breaker.succeeded()
    fail(breaker, 2)
    assert admitted(breaker, 1) == 1
    fail(breaker)
    with pytest.raises(StoreUnavailable) as caught:
        breaker.enter()
    assert "5.0 s" in caught.value.hint
    assert breaker.opened == 1


def test_at_half_open_exactly_one_of_a_hundred_goes_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 4.999
    assert (breaker.admits, admitted(breaker, 100)) == (False, 0)
    clock.now += 0.001
    assert (breaker.admits, admitted(breaker, 100)) == (True, 1)


def test_a_probe_that_fails_opens_it_for_as_long_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 5
    fail(breaker)
    assert admitted(breaker, 10) == 0
    clock.now += 5
    assert admitted(breaker, 10) == 1
    assert breaker.opened == 1


def test_a_probe_that_succeeds_closes_it_and_forgets_the_failures(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 5
    breaker.enter()
    breaker.succeeded()
    fail(breaker, 2)
    assert admitted(breaker, 10) == 10


def test_a_probe_that_was_cancelled_leaves_its_place_to_the_next(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 5
    breaker.enter()
    breaker.gave_up()
    assert admitted(breaker, 10) == 1


def test_a_refused_password_is_told_at_once_and_tried_again_once(breaker: Breaker, clock: Clock) -> None:
    breaker.enter()
    breaker.failed(REFUSED)
    for _ in range(50):
        with pytest.raises(AuthenticationFailed, match="wrong password"):
            breaker.enter()
    clock.now += 5
    breaker.enter()
    with pytest.raises(AuthenticationFailed):
        breaker.enter()


def test_a_new_password_is_tried_without_waiting(breaker: Breaker) -> None:
    breaker.enter()
    breaker.failed(REFUSED)
    breaker.forgive()
    assert admitted(breaker, 10) == 10


def test_a_new_password_does_not_close_it_on_a_server_that_is_down(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.forgive()
    assert admitted(breaker, 10) == 0


def test_a_call_that_began_before_it_opened_and_answers_late_closes_it(breaker: Breaker) -> None:
    breaker.enter()
    fail(breaker, 3)
    breaker.succeeded()
    assert admitted(breaker, 2) == 2


def test_a_connection_that_breaks_late_does_not_hide_a_refused_password(breaker: Breaker) -> None:
    breaker.enter()
    breaker.enter()
    breaker.failed(REFUSED)
    breaker.failed(DOWN)
    with pytest.raises(AuthenticationFailed):
        breaker.enter()
