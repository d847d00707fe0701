# SPDX-License-Identifier: Apache-2.0
"""ns a packet with one limit per source, beside a plain program with an LRU hash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from bench.harness import HERE, Case, Harness, Sources, ratio, udp4
from bench.rows import Row, row
from support.bpf import loaded
from support.policy import limit, publish
from valkyrie.control.dataplane import pins
from valkyrie.control.lab.compile import compiled

# A bucket is live for six minutes after its first packet, and every packet passes.
RATE, BURST = "10/h", "100000"
COST_NS = 360_000_000_000
# Live buckets, buckets in both tables, budget of the ratio.
FEW = ((1_000, 1 << 20, "<= 1.1"), (64_000, 1 << 20, None))
MANY = ((1_000_000, 1 << 21, "<= 0.6"), (1_000_000, 1 << 20, None))
PACKETS, ROUNDS = 1_000_000, 9
WAYS = 8


def few() -> Iterator[Row]:
    """Buckets that fit the CPU's caches."""
    return _sizes(FEW)


def many() -> Iterator[Row]:
    """Buckets that do not; also a table with hardly a place free, where live ones are replaced."""
    return _sizes(MANY)


def _sizes(sizes: tuple[tuple[int, int, str | None], ...]) -> Iterator[Row]:
    with Harness() as harness:
        for live, entries, budget in sizes:
            yield from _size(harness, live, entries, budget)


def _size(harness: Harness, live: int, entries: int, budget: str | None) -> Iterator[Row]:
    flags = [f"-DENTRIES={entries}", f"-DCOST_NS={COST_NS}ULL", f"-DTAU_NS={COST_NS * int(BURST)}ULL"]
    with ExitStack() as stack:
        reference = stack.enter_context(compiled(HERE / "reference.bpf.c", ["reference"], [], flags))
        kernel = stack.enter_context(loaded("bench", entries // WAYS))
        publish(kernel, [limit(rate=RATE, burst=BURST, key="src")])
        programs = {
            "null": harness.null,
            "reference": reference.programs["reference"],
            "police": kernel.dp.fd(pins.PROGRAM),
        }
        cases = {name: Case(fd, udp4(), Sources(live)) for name, fd in programs.items()}
        taken = harness.compare(cases, packets=PACKETS, rounds=ROUNDS)
        evicted = kernel.table_counter("evicted_live")
    told = f"{live:,} live buckets in a table of {entries / (1 << 20):.0f} Mi"
    for name in ("null", "reference", "police"):
        yield row(f"ns a packet, {told}: {name}", median(taken[name]), "ns")
    yield row(
        f"ns a packet, {told}: police / reference", ratio(taken["police"], taken["reference"]), "x", budget
    )
    above = [
        [t - n for t, n in zip(taken[name], taken["null"], strict=True)] for name in ("police", "reference")
    ]
    yield row(f"ns a packet, {told}: police / reference, both less null", ratio(*above), "x")
    yield row(f"ns a packet, {told}: live buckets replaced", evicted, "buckets")
