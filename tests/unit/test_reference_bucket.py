# SPDX-License-Identifier: Apache-2.0
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from support.reference.bucket import Bucket, Plan, Table, charge, time_units

SECOND = 1_000_000_000


def packets_a_second(rate: int, burst: int, batch: int = 0) -> Plan:
    cost = time_units(SECOND) // rate
    return Plan(mult=cost, shift=0, tau=burst * cost, batch=batch)


def test_an_unused_bucket_admits_its_burst_and_no_packet_more() -> None:
    table, plan = Table(sets=8), packets_a_second(10, burst=5)
    taken = [table.take(77, plan, plan.cost(1), 0) is not None for _ in range(8)]
    assert taken == [True] * 5 + [False] * 3


def test_a_token_is_there_again_at_the_very_unit_of_time_and_not_one_before() -> None:
    table, plan = Table(sets=8), packets_a_second(10, burst=1)
    assert table.take(77, plan, plan.cost(1), 0) is not None
    assert table.take(77, plan, plan.cost(1), plan.cost(1) - 1) is None
    assert table.take(77, plan, plan.cost(1), plan.cost(1)) is not None


def test_costs_are_rounded_up_so_that_a_rate_is_never_exceeded() -> None:
    plan = Plan(mult=5, shift=2, tau=100)
    assert [plan.cost(n) for n in (0, 1, 3, 4)] == [0, 2, 4, 5]


@given(
    st.integers(1, 10_000),
    st.integers(1, 50),
    st.lists(st.integers(0, time_units(SECOND) // 10), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_than_burst_and_rate_allow(rate: int, burst: int, gaps: list[int]) -> None:
    plan, bucket = packets_a_second(rate, burst), Bucket()
    now, admitted = 1, []
    for gap in gaps:
        now += gap
        if charge(bucket, now, plan.cost(1), plan.tau):
            admitted.append(now)
    for i, start in enumerate(admitted):
        for j in range(i, len(admitted)):
            window = Fraction(admitted[j] - start, plan.cost(1))
            assert j - i + 1 <= burst + window


def test_giving_back_leaves_the_bucket_as_it_was() -> None:
    table, plan = Table(sets=8), packets_a_second(10, burst=5)
    table.take(77, plan, plan.cost(1), 0)
    before = table.find(77)
    assert before is not None
    tat = before.tat
    taken = table.take(77, plan, plan.cost(1), 0)
    assert taken is not None
    taken.undo()
    assert before.tat == tat


def test_a_full_set_gives_up_an_idle_bucket_before_a_live_one() -> None:
    table, plan = Table(sets=1), packets_a_second(10, burst=5)
    for fingerprint in range(1, 9):
        table.take(fingerprint, plan, plan.cost(1), 0 if fingerprint == 6 else plan.cost(1))
    table.take(99, plan, plan.cost(1), plan.cost(1))
    assert table.find(6) is None
    assert table.evicted_live == 0
    assert all(table.find(fingerprint) for fingerprint in (1, 2, 3, 4, 5, 7, 8, 99))


def test_a_newcomer_to_a_full_set_inherits_the_smallest_debt() -> None:
    table, plan = Table(sets=1), packets_a_second(10, burst=5)
    for fingerprint in range(1, 9):
        for _ in range(5 if fingerprint != 4 else 3):
            table.take(fingerprint, plan, plan.cost(1), 0)
    taken = [table.take(99, plan, plan.cost(1), 0) is not None for _ in range(3)]
    assert table.find(4) is None
    assert taken == [True, True, False]
    assert table.evicted_live == 1


def test_a_newcomer_starts_full_when_the_table_opens_on_overflow() -> None:
    table, plan = Table(sets=1, full_open=True), packets_a_second(10, burst=5)
    for fingerprint in range(1, 9):
        for _ in range(5):
            table.take(fingerprint, plan, plan.cost(1), 0)
    assert all(table.take(99, plan, plan.cost(1), 0) for _ in range(5))


def test_a_lease_is_paid_for_before_it_is_spent() -> None:
    cost = packets_a_second(10, 5).cost(1)
    table, plan = Table(sets=8), packets_a_second(10, burst=100, batch=10 * cost)
    assert table.take(77, plan, cost, 0) is not None
    bucket = table.find(77)
    assert bucket is not None
    assert bucket.tat == 10 * cost
    assert table.lease(77).left == 9 * cost


def test_a_lease_is_void_once_its_bucket_may_have_been_full() -> None:
    cost = packets_a_second(10, 5).cost(1)
    table, plan = Table(sets=8), packets_a_second(10, burst=100, batch=10 * cost)
    table.take(77, plan, cost, 0)
    table.take(77, plan, cost, 10 * cost)
    assert table.leased == 2
    assert table.lease(77).left == 9 * cost


def test_leases_admit_no_packet_more_than_the_burst() -> None:
    cost = packets_a_second(10, 5).cost(1)
    table, plan = Table(sets=8), packets_a_second(10, burst=100, batch=7 * cost)
    assert sum(table.take(77, plan, cost, 0) is not None for _ in range(200)) == 100
