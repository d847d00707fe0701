# SPDX-License-Identifier: Apache-2.0
"""What is admitted under overload, held against burst + rate * time, on the real clock.

Every CPU that takes part runs a harness of its own flat out, for a while, in a process of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context

from bench.harness import Case, Harness, Sources, udp4
from bench.rows import Row, row
from support.bpf import Kernel, loaded
from support.policy import limit, publish
from valkyrie.control.dataplane import pins

CPUS = sorted(os.sched_getaffinity(0))
RATES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
SECONDS, ROUNDS = 1.0, 2
AT_ONCE = 50_000  # packets a call: some milliseconds
SETS = 16384
LEAST, MOST = ">= 0.99", "<= 0"
WAIT_S = 60.0


@dataclass(frozen=True)
class Setting:
    """One measurement: `sources` buckets of `rate` packets/s and a burst of a second's worth."""

    rate: int
    key: str
    sources: int
    cpus: tuple[int, ...]

    def told(self) -> str:
        where = "one CPU" if len(self.cpus) == 1 else f"{len(self.cpus)} CPUs at once"
        return f"{self.rate:,}/s, {self.key}, {where}"


@dataclass(frozen=True)
class Admitted:
    """Packets offered and admitted, and the seconds from before the first packet until after the last."""

    offered: int
    passed: int
    seconds: float


def settings(cpus: tuple[int, ...]) -> Iterator[Setting]:
    """All rates and keys. So many sources that each is offered tenfold where the harness can."""
    for rate in RATES:
        yield Setting(rate, "global", 1000, cpus)
        yield Setting(rate, "src", max(1, min(1000, 100_000 // rate)), cpus)


def run() -> Iterator[Row]:
    """Three rows a setting: how much was offered, the share of what is allowed, and packets too many."""
    with loaded("bench", SETS) as kernel:
        for cpus in ((CPUS[0],), tuple(CPUS)):
            wanted = list(settings(cpus))
            for setting, rounds in zip(wanted, _measure(kernel, cpus, wanted), strict=True):
                yield from _rows(setting, rounds)


def _rows(setting: Setting, rounds: list[Admitted]) -> Iterator[Row]:
    """More than is allowed counts in any round. Less counts if every round has it: a CPU that other work
    or the hypervisor takes away offers nothing meanwhile.
    """
    told = setting.told()
    buckets = setting.sources if setting.key == "src" else 1
    allowed = [buckets * setting.rate * (1 + each.seconds) for each in rounds]
    # A bucket admits whole packets: what is left of one at the end is no shortfall.
    whole = [buckets * int(setting.rate * (1 + each.seconds)) for each in rounds]
    share = max(each.passed / most for each, most in zip(rounds, whole, strict=True))
    beyond = max(each.passed - most for each, most in zip(rounds, allowed, strict=True))
    yield row(
        f"offered / allowed, {told}", min(e.offered / a for e, a in zip(rounds, allowed, strict=True)), "x"
    )
    yield row(f"admitted / allowed, {told}", share, "x", LEAST)
    yield row(f"admitted beyond what is allowed, {told}", max(0.0, beyond), "packets", MOST)


def _measure(kernel: Kernel, cpus: tuple[int, ...], wanted: list[Setting]) -> Iterator[list[Admitted]]:
    """The rounds of each setting; every bucket is full when a round begins."""
    context = get_context("fork")
    barrier, answers = context.Barrier(len(cpus) + 1), context.SimpleQueue()
    program = kernel.dp.fd(pins.PROGRAM)

    def work(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})
        with Harness() as harness:
            for setting in wanted:
                case = Case(program, udp4(), Sources(setting.sources))
                harness.aim(case)
                for _ in range(ROUNDS):
                    barrier.wait(WAIT_S)
                    answers.put(_flat_out(harness, case.frame))

    workers = [context.Process(target=work, args=(cpu,)) for cpu in cpus]
    for worker in workers:
        worker.start()
    try:
        for setting in wanted:
            yield [_round(kernel, setting, barrier.wait, [answers.get] * len(cpus)) for _ in range(ROUNDS)]
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _round(
    kernel: Kernel,
    setting: Setting,
    begin: Callable[[float], object],
    answers: list[Callable[[], tuple[int, int]]],
) -> Admitted:
    kernel.reset()
    published = publish(kernel, [limit(rate=f"{setting.rate}/s", key=setting.key)], event_sample=0)
    begin(WAIT_S)
    spans = [answer() for answer in answers]
    counters = kernel.limit_counters(published.slot)
    seconds = (max(end for _, end in spans) - min(start for start, _ in spans)) / 1e9
    return Admitted(counters["matched"], counters["passed"], seconds)


def _flat_out(harness: Harness, frame: bytes) -> tuple[int, int]:
    """Monotonic ns before the first packet and after the last."""
    begin = now = time.monotonic_ns()
    while now < begin + SECONDS * 1e9:
        harness.go(frame, AT_ONCE)
        now = time.monotonic_ns()
    return begin, now
