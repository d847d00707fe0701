# SPDX-License-Identifier: Apache-2.0
"""Rates and bursts, to the very token, at chosen times."""

from fractions import Fraction
from random import Random

import pytest

from support.bpf import XDP_DROP, XDP_PASS, Kernel
from support.policy import limit, publish
from support.reference.frames import ethernet, ipv4, udp

START = 1_000_000_000_000
SECOND = 1_000_000_000


def packet(source: int = 1, size: int = 0) -> bytes:
    """A UDP packet of 28 + `size` bytes."""
    payload = udp(1000, 2000, bytes(size))
    return ethernet(0x0800, ipv4((0x0A000000 + source).to_bytes(4, "big"), b"\xc6\x33\x64\1", 17, payload))


def passed(kernel: Kernel, frame: bytes, now: int, count: int = 1) -> int:
    return sum(kernel.run(frame, now).action == XDP_PASS for _ in range(count))


@pytest.mark.parametrize(("rate", "burst"), [("1/h", 1), ("10/s", 5), ("1000000/s", 100), ("100/m", 1)])
def test_a_full_bucket_admits_its_burst_at_once_and_nothing_more(
    kernel: Kernel, rate: str, burst: int
) -> None:
    publish(kernel, [limit(rate=rate, burst=str(burst), key="src")])
    assert passed(kernel, packet(), START, burst + 50) == burst


def test_the_next_token_is_there_at_the_very_nanosecond(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="10/s", burst="1", key="src")])
    assert kernel.run(packet(), START).action == XDP_PASS
    assert kernel.run(packet(), START + SECOND // 10 - 1).action == XDP_DROP
    assert kernel.run(packet(), START + SECOND // 10).action == XDP_PASS


def test_each_source_has_a_bucket_of_its_own(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="10/s", burst="3", key="src")])
    assert [passed(kernel, packet(source), START, 5) for source in range(1, 6)] == [3] * 5


def test_a_refused_packet_takes_no_tokens(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="10/s", burst="1", key="src")])
    kernel.run(packet(), START)
    before = kernel.buckets()
    passed(kernel, packet(), START, 20)
    assert kernel.buckets() == before


@pytest.mark.parametrize(
    ("measure", "size", "tokens"),
    [("ip", 1000, 1028), ("frame", 1000, 1042), ("ip", 0, 28), ("frame", 0, 42)],
)
def test_bytes_are_counted_of_what_the_limit_says(
    kernel: Kernel, measure: str, size: int, tokens: int
) -> None:
    publish(kernel, [limit(rate="1MB/s", burst="100000B", key="src", measure=measure)])
    assert passed(kernel, packet(size=size), START, 5000) == 100_000 // tokens


@pytest.mark.parametrize("rate", ["1/h", "7/m", "10/s", "999/s", "1000000/s"])
@pytest.mark.parametrize("load", [2, 10])
def test_overload_never_gains_a_packet_and_loses_less_than_one_in_a_hundred(
    kernel: Kernel, rate: str, load: int
) -> None:
    burst, steps, rng = 10, 20_000, Random(load)
    publish(kernel, [limit(rate=rate, burst=str(burst), key="src")])
    number, _, word = rate.partition("/")
    amount, period = int(number), {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}[word]
    gap, now, frame, admitted = Fraction(period, amount * load), Fraction(START), packet(), 0
    for _ in range(steps):
        now += gap * rng.randrange(0, 3)
        admitted += kernel.run(frame, int(now)).action == XDP_PASS
    allowed = burst + (int(now) - START) * Fraction(amount, period)
    assert admitted <= allowed
    assert admitted >= Fraction(99, 100) * (allowed - 1)


def test_400_gigabits_a_second_are_exact(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="400gbit/s", burst="64KB", key="src")])
    frame, admitted, now = packet(size=1472), 0, START
    for _ in range(20_000):
        now += 15
        admitted += kernel.run(frame, now).action == XDP_PASS
    allowed = 64_000 + (now - START) * 50
    assert 0.99 * (allowed - 1500) <= admitted * 1500 <= allowed


def test_a_clock_that_runs_behind_another_cpus_takes_nothing_twice(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1000/s", burst="10", key="src")])
    rng, admitted = Random(3), 0
    times = [START + i * 100_000 + rng.randrange(-2000, 2000) for i in range(5000)]
    for now in times:
        admitted += kernel.run(packet(), now).action == XDP_PASS
    assert admitted <= 10 + Fraction(max(times) - min(times), SECOND // 1000)


def test_nine_years_of_uptime_change_nothing(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1/h", burst="2", key="src")])
    late = 8 * 365 * 86400 * SECOND
    assert passed(kernel, packet(), late, 5) == 2
    assert passed(kernel, packet(), late + 3600 * SECOND, 5) == 1
