# SPDX-License-Identifier: Apache-2.0
"""ns a packet with one limit per source, beside a plain program with an LRU hash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from bench.harness import HERE, Case, Harness, Sources, ratio, udp4
from bench.memory import PARTS, WAYS, memlock, pin_memlock
from bench.rows import Row, row
from support.bpf import loaded
from support.policy import limit, publish
from valkyrie.control.dataplane import pins
from valkyrie.control.lab.compile import compiled

# A bucket is live for six minutes after its first packet, and every packet passes.
RATE, BURST = "10/h", "100000"
COST_NS = 360_000_000_000
# Live buckets, places in this table and in the LRU hash, budget of the ratio.
FEW = ((1_000, 1 << 20, 1 << 20, "<= 1.1"), (64_000, 1 << 20, 1 << 20, None))
# A million live ones need room in sets of eight; the first two take nearly equal memory.
MANY = (
    (1_000_000, 1 << 21, 1 << 20, "<= 0.6"),
    (1_000_000, 1 << 20, 1 << 20, None),
    (1_000_000, 1 << 21, 1 << 21, None),
)
PACKETS, ROUNDS = 400_000, 21


def few() -> Iterator[Row]:
    """Buckets that fit the CPU's caches."""
    return _sizes(FEW)


def many() -> Iterator[Row]:
    """Buckets that do not; also a table with hardly a place free, where live ones are replaced."""
    return _sizes(MANY)


def told(live: int, places: int, entries: int) -> str:
    """How rows name a size."""
    return f"{live:,} live buckets (places: ours {places >> 20} Mi, LRU {entries >> 20} Mi)"


def _sizes(sizes: tuple[tuple[int, int, int, str | None], ...]) -> Iterator[Row]:
    with Harness() as harness:
        for size in sizes:
            yield from _size(harness, *size)


def _size(harness: Harness, live: int, places: int, entries: int, budget: str | None) -> Iterator[Row]:
    flags = [f"-DENTRIES={entries}", f"-DCOST_NS={COST_NS}ULL", f"-DTAU_NS={COST_NS * int(BURST)}ULL"]
    with ExitStack() as stack:
        reference = stack.enter_context(compiled(HERE / "reference.bpf.c", ["reference"], ["buckets"], flags))
        kernel = stack.enter_context(loaded("bench", places // WAYS))
        publish(kernel, [limit(rate=RATE, burst=BURST, key="src")])
        programs = {
            "null": harness.null,
            "reference": reference.programs["reference"],
            "police": kernel.dp.fd(pins.PROGRAM),
        }
        cases = {name: Case(fd, udp4(), Sources(live)) for name, fd in programs.items()}
        taken = harness.compare(cases, packets=PACKETS, rounds=ROUNDS)
        evicted = kernel.table_counter("evicted_live")
        memory = {
            "police": sum(pin_memlock(kernel.dp.pin_dir / name) for name in PARTS),
            "reference": memlock(reference.maps["buckets"]),
        }
    head = f"ns a packet, {told(live, places, entries)}"
    for name in ("null", "reference", "police"):
        yield row(f"{head}: {name}", median(taken[name]), "ns")
    yield row(f"{head}: police / reference", ratio(taken["police"], taken["reference"]), "x", budget)
    above = [
        [t - n for t, n in zip(taken[name], taken["null"], strict=True)] for name in ("police", "reference")
    ]
    yield row(f"{head}: police / reference, both less null", ratio(*above), "x")
    yield row(f"{head}: live buckets replaced", evicted, "buckets")
    for name, taken_bytes in memory.items():
        yield row(f"{head}: memory of {name}", taken_bytes / 1e6, "MB")
