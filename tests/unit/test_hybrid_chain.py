# SPDX-License-Identifier: Apache-2.0
"""The state machine of a chain: when it switches, when it goes back, and that flapping is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from valkyrie.adapters.hybrid.chain import MOST_GROWTH, SETTLED_S, Chain

HOLD = 5.0


def well(chain: Chain, index: int, start: float, end: float) -> None:
    """Probes a second apart that all succeed."""
    now = start
    while now <= end:
        chain.probed(index, now, ok=True)
        now += 1.0


def fail_back(chain: Chain, now: float) -> bool:
    switch = chain.due(now)
    return switch is not None and chain.back(switch, now)


def test_a_failure_switches_to_the_next_store_at_once() -> None:
    chain = Chain(3, HOLD)
    switch = chain.failed(0, 1.0, 2.0, "refused")
    assert switch is not None
    assert (switch.kind, switch.source, switch.target, switch.why) == ("switch-over", 0, 1, "refused")
    assert chain.choose() == 1


def test_failures_of_calls_that_were_under_way_do_not_switch_again() -> None:
    chain = Chain(3, HOLD)
    assert chain.failed(0, 1.0, 2.0, "refused")
    assert chain.failed(0, 1.5, 3.0, "refused") is None
    assert chain.in_use == 1


def test_a_late_failure_from_before_a_fail_back_does_not_count() -> None:
    chain = Chain(2, 0.0)
    chain.failed(0, 1.0, 2.0, "refused")
    chain.probed(0, 2.1, ok=True)
    assert fail_back(chain, 2.1)
    assert chain.failed(0, 1.9, 2.5, "timeout") is None
    assert chain.in_use == 0


def test_a_store_known_to_be_away_is_passed_over() -> None:
    chain = Chain(3, HOLD)
    chain.probed(1, 1.0, ok=False, why="refused")
    switch = chain.failed(0, 1.0, 2.0, "refused")
    assert switch is not None
    assert switch.target == 2


def test_with_every_store_away_none_is_asked_and_the_first_that_is_well_is_used_at_once() -> None:
    chain = Chain(2, HOLD)
    chain.failed(0, 1.0, 1.0, "refused")
    switch = chain.failed(1, 1.0, 1.0, "refused")
    assert switch is not None
    assert (switch.kind, switch.target) == ("all-away", None)
    assert chain.choose() is None
    assert chain.due(2.0) is None
    chain.probed(1, 2.0, ok=True)
    assert fail_back(chain, 2.0)
    assert chain.in_use == 1


def test_it_goes_back_only_after_the_whole_hold_of_health() -> None:
    chain = Chain(2, HOLD)
    chain.probed(0, 0.0, ok=True)
    chain.failed(0, 10.0, 10.0, "refused")
    hold = chain.hold(0)
    well(chain, 0, 11.0, 11.0 + hold - 1)
    assert not fail_back(chain, 11.0 + hold - 0.1)
    assert fail_back(chain, 11.0 + hold)


def test_one_failed_probe_starts_the_hold_anew() -> None:
    chain = Chain(2, HOLD)
    chain.failed(0, 1.0, 1.0, "refused")
    hold = chain.hold(0)
    chain.probed(0, 2.0, ok=True)
    chain.probed(0, 2.0 + hold - 0.5, ok=False, why="refused")
    chain.probed(0, 2.0 + hold, ok=True)
    assert not fail_back(chain, 2.0 + hold + 1)
    assert fail_back(chain, 2.0 + 2 * hold)


def test_the_first_failure_does_not_lengthen_the_hold() -> None:
    chain = Chain(2, HOLD)
    chain.failed(0, 1.0, 1.0, "refused")
    assert chain.hold(0) == HOLD


def test_a_failure_after_a_long_life_does_not_lengthen_the_hold() -> None:
    chain = Chain(2, HOLD)
    chain.failed(0, 1.0, 1.0, "refused")
    chain.probed(0, 2.0, ok=True)
    assert fail_back(chain, 2.0 + HOLD)
    late = 2.0 + HOLD + SETTLED_S
    chain.failed(0, late, late, "refused")
    assert chain.hold(0) == HOLD


def test_flapping_lengthens_the_hold_up_to_a_bound_and_lasting_ends_that() -> None:
    chain = Chain(2, HOLD)
    now, holds = 1000.0, []
    chain.failed(0, now, now, "refused")
    for _ in range(10):
        hold = chain.hold(0)
        holds.append(hold)
        chain.probed(0, now, ok=True)
        assert not fail_back(chain, now + hold - 0.1)
        now += hold
        assert fail_back(chain, now)
        now += 0.5
        chain.failed(0, now, now, "refused")
    assert holds == [HOLD, 10.0, 20.0, 40.0, 80.0, 160.0, 160.0, 160.0, 160.0, 160.0]
    assert max(holds) == HOLD * MOST_GROWTH
    chain.probed(0, now, ok=True)
    now += HOLD * MOST_GROWTH
    assert fail_back(chain, now)
    now += 10 * HOLD * MOST_GROWTH
    chain.failed(0, now, now, "refused")
    assert chain.hold(0) == HOLD


def test_a_hold_of_nothing_grows_too_when_the_store_flaps() -> None:
    chain = Chain(2, 0.0)
    for now in (1.0, 2.0):
        chain.failed(0, now, now, "refused")
        chain.probed(0, now, ok=True)
        assert chain.due(now) is not None or now > 1.0
        fail_back(chain, now)
    assert chain.hold(0) == 2.0
    assert not fail_back(chain, 3.9)
    assert fail_back(chain, 4.0)


def test_a_fail_back_that_was_overtaken_does_not_happen() -> None:
    chain = Chain(2, HOLD)
    chain.failed(0, 100.0, 100.0, "refused")
    chain.probed(0, 101.0, ok=True)
    switch = chain.due(101.0 + HOLD)
    assert switch is not None
    chain.probed(0, 101.0 + HOLD, ok=False, why="refused again")
    assert not chain.back(switch, 101.0 + HOLD)
    assert chain.in_use == 1


def test_when_the_fallback_fails_an_earlier_store_that_is_well_is_used_before_its_hold_ends() -> None:
    chain = Chain(2, HOLD)
    chain.failed(0, 100.0, 100.0, "refused")
    chain.probed(0, 101.0, ok=True)
    switch = chain.failed(1, 101.5, 101.5, "refused")
    assert switch is not None
    assert (switch.kind, switch.target) == ("switch-over", 0)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["fail", "well", "ill", "back"]), st.integers(0, 2), st.floats(0.01, 20)),
    max_size=200,
)


@given(EVENTS)
def test_whatever_happens_no_store_known_to_be_away_is_in_use(events: list[tuple[str, int, float]]) -> None:
    chain, now = Chain(3, HOLD), 1.0
    for kind, index, passed in events:
        now += passed
        if kind == "fail":
            chain.failed(index, now, now, "x")
        elif kind == "back":
            fail_back(chain, now)
        else:
            chain.probed(index, now, ok=kind == "well", why="x")
        in_use = chain.in_use
        assert in_use is None or not chain.place(in_use).away
        assert chain.choose() == in_use
        if in_use is None:
            assert all(chain.place(place).away for place in range(3))
        assert all(HOLD <= chain.hold(place) <= HOLD * MOST_GROWTH for place in range(3))
