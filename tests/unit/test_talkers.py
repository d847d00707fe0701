# SPDX-License-Identifier: Apache-2.0
"""Top talkers: a bounded sketch that a flood of newcomers neither fools nor slows down."""

from collections import Counter
from random import Random

from valkyrie.control.service.talkers import HALF_LIFE_S, SIZE, Talkers


class Time:
    now = 5000.0


def counted(talkers: Talkers) -> dict[tuple[str, str], int]:
    return {(row["key"], row["limit"]): row["dropped"] for row in talkers.top(SIZE)}


def test_no_count_is_too_low_and_none_is_too_high_by_more_than_a_share_of_all() -> None:
    random, true = Random(7), Counter[tuple[str, str]]()
    talkers = Talkers(lambda: Time.now)
    for n in range(50_000):
        source = f"10.0.0.{random.randrange(20)}" if n % 2 else f"forged {random.randrange(10**9)}"
        true[source, "web"] += 3
        talkers.add(source, "web", 3)
    found = counted(talkers)
    assert len(found) == SIZE
    heavy = {where for where, count in true.items() if count > true.total() / SIZE}
    assert len(heavy) == 20
    assert set(list(found)[:20]) == heavy
    for where, count in found.items():
        assert true[where] <= count <= true[where] + true.total() / SIZE


def test_the_past_fades_by_half_and_what_is_forgotten_makes_room() -> None:
    time = Time()
    talkers = Talkers(lambda: time.now)
    talkers.add("192.0.2.1", "web", 100)
    for n in range(SIZE):
        talkers.add(f"10.1.{n >> 8}.{n & 255}", "web", 1)
    time.now += 2 * HALF_LIFE_S
    assert counted(talkers) == {("192.0.2.1", "web"): 25}
    for n in range(2 * SIZE):
        talkers.add(f"10.2.{n >> 8}.{n & 255}", "web", 1)
    assert next(iter(counted(talkers))) == ("192.0.2.1", "web")
