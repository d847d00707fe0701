# SPDX-License-Identifier: Apache-2.0
"""Leases: every CPU spends from its own purse, and all together never more than the limit."""

import os
from collections.abc import Callable
from fractions import Fraction
from multiprocessing import get_context
from random import Random

import numpy as np
import pytest

from support.bpf import SECRET, XDP_PASS, Kernel, on_cpu
from support.policy import FIRST_UID, limit, publish
from support.reference.frames import ethernet, ipv4, udp
from support.reference.siphash import siphash_words
from valkyrie.control.abi import LEASES, MAX_LIMITS, Reason

START = 1_000_000_000_000
SECOND = 1_000_000_000
CPUS = sorted(os.sched_getaffinity(0))


def packet(source: int) -> bytes:
    return ethernet(0x0800, ipv4((0x0A000000 + source).to_bytes(4, "big"), b"\xc6\x33\x64\1", 17, udp(1, 2)))


def on_all_cpus(work: Callable[[int], int]) -> list[int]:
    """Call work(cpu) in a process on each CPU at once; their answers."""
    context = get_context("fork")
    barrier, answers = context.Barrier(len(CPUS)), context.SimpleQueue()

    def run(cpu: int) -> None:
        with on_cpu(cpu):
            barrier.wait(60)
            answers.put(work(cpu))

    workers = [context.Process(target=run, args=(cpu,)) for cpu in CPUS]
    for worker in workers:
        worker.start()
    results = [answers.get() for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    return results


def count_passed(kernel: Kernel, frames: list[bytes], now: int) -> int:
    return sum(kernel.runner.run(frame, now)[0] == XDP_PASS for frame in frames)


def test_the_first_packet_buys_a_batch_and_the_next_ones_spend_it(kernel: Kernel) -> None:
    published = publish(kernel, [limit(rate="1000/s", burst="10000", key="global")])
    batch = int(published.compiled.limits[0]["plan"]["batch"])
    cost = int(published.compiled.limits[0]["plan"]["mult"])
    assert batch >= 2 * cost
    with on_cpu(CPUS[0]):
        for _ in range(batch // cost):
            kernel.run(packet(1), START)
        assert list(kernel.buckets().values()) == [(START << 6) + batch]
        kernel.run(packet(1), START)
    assert list(kernel.buckets().values()) == [(START << 6) + 2 * batch]
    assert kernel.limit_counters(published.slot)["leased"] == 2


def test_a_small_burst_is_not_leased(kernel: Kernel) -> None:
    published = publish(kernel, [limit(rate="1000/s", burst=str(128 * len(CPUS) - 1), key="global")])
    kernel.run(packet(1), START)
    assert kernel.limit_counters(published.slot)["leased"] == 0


def test_a_bucket_of_one_host_is_not_leased(kernel: Kernel) -> None:
    published = publish(kernel, [limit(rate="1000/s", burst="1000000", key="src")])
    kernel.run(packet(1), START)
    assert kernel.limit_counters(published.slot)["leased"] == 0


@pytest.mark.parametrize("burst", [1000, 100_000])
def test_a_burst_on_all_cpus_at_once_is_spent_to_within_one_in_a_hundred(kernel: Kernel, burst: int) -> None:
    publish(kernel, [limit(rate="10/s", burst=str(burst), key="global")])
    frames = [packet(1)] * (burst // len(CPUS) + burst // 2)
    admitted = sum(on_all_cpus(lambda cpu: count_passed(kernel, frames, START)))
    assert 0.99 * burst <= admitted <= burst


@pytest.mark.parametrize("key", ["src", "global"])
def test_an_unleased_bucket_is_exact_on_all_cpus_at_once(kernel: Kernel, key: str) -> None:
    publish(kernel, [limit(rate="1/h", burst="200", key=key)])
    frames = [packet(1)] * 20_000
    admitted = sum(on_all_cpus(lambda cpu: count_passed(kernel, frames, START)))
    contended = kernel.reasons().get(Reason.CONTENDED, 0)
    assert admitted == 200
    assert contended <= len(CPUS) * 20_000 // 1000


@pytest.mark.parametrize("rate", [100, 10_000, 1_000_000])
def test_overload_in_turns_on_all_cpus_stays_within_the_limit_and_one_in_a_hundred(
    kernel: Kernel, rate: int
) -> None:
    burst, steps, rng = 1000, 300, Random(rate)
    publish(kernel, [limit(rate=f"{rate}/s", burst=str(burst), key="global")])
    gap, now, admitted, frames = 40 * SECOND // rate, START, 0, [packet(1)] * 200
    for step in range(steps):
        now += rng.randrange(2 * gap)
        with on_cpu(CPUS[step % len(CPUS)]):
            admitted += count_passed(kernel, frames, now)
    allowed = burst + (now - START) * Fraction(rate, SECOND)
    assert 0.99 * float(allowed) <= admitted <= allowed


def test_a_lease_left_idle_gives_no_tokens_once_the_bucket_has_refilled(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1000/s", burst="1000", key="global")])
    with on_cpu(CPUS[0]):
        kernel.run(packet(1), START)
        later = START + 3600 * SECOND
        assert count_passed(kernel, [packet(1)] * 3000, later) == 1000


def same_place() -> tuple[int, int]:
    """Two of the first limits whose global buckets have one place for their leases."""
    first_at: dict[int, int] = {}
    for index in range(MAX_LIMITS - 1):
        place = siphash_words(SECRET, [FIRST_UID + index]) >> 40 & (LEASES - 1)
        if place in first_at:
            return first_at[place], index
        first_at[place] = index
    raise AssertionError("no two global limits meet under this secret: take another one")


def test_what_a_refused_packet_gives_back_never_ends_in_another_limits_lease(kernel: Kernel) -> None:
    """The slow limit's lease is spent by the packet itself, and an hour of its time is much elsewhere."""
    slow, fast = same_place()
    limits = [limit(f"l{n:03}", match="proto icmp", rate="1/h", key="global") for n in range(fast + 1)]
    limits[slow] = limit(f"l{slow:03}", rate="1/h", burst=str(128 * kernel.dp.sizes.cpus), key="global")
    limits[fast] = limit(f"l{fast:03}", rate="1000000/s", burst="1000000", key="global")
    limits.append(limit("z", rate="1/h", burst="1", key="global"))
    published = publish(kernel, limits)
    batch = int(published.compiled.limits[fast]["plan"]["batch"])
    last = siphash_words(SECRET, [FIRST_UID + fast + 1])
    with on_cpu(CPUS[0]):
        kernel.run(packet(1), START)
        kernel.dp.leases[:] = 0
        assert last in kernel.buckets()
        assert kernel.run(packet(1), START).reason is Reason.LIMIT
    left = kernel.dp.leases["left"]
    owner = kernel.dp.leases["fingerprint"]
    cost = int(published.compiled.limits[slow]["plan"]["mult"])
    assert left[owner == np.uint64(siphash_words(SECRET, [FIRST_UID + slow]))].tolist() == [cost]
    assert left[owner == np.uint64(siphash_words(SECRET, [FIRST_UID + fast]))].sum() <= batch


def test_two_cpus_that_make_one_bucket_at_once_end_with_one(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", key="src")])
    frames = [packet(source) for source in range(60)]
    for _ in range(20):
        kernel.dp.buckets[:] = 0
        kernel.forget_counts()
        admitted = sum(on_all_cpus(lambda cpu: count_passed(kernel, frames, START)))
        fingerprints = kernel.dp.buckets["fingerprint"]
        assert (
            len(fingerprints[fingerprints != 0]) == len(set(fingerprints[fingerprints != 0].tolist())) == 60
        )
        assert admitted + kernel.reasons().get(Reason.CONTENDED, 0) >= 60
        assert admitted <= 60
