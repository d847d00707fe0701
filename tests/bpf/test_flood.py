# SPDX-License-Identifier: Apache-2.0
"""A spoofed flood through the loaded program, its table of the default size.

The kernel makes the flood: a small program writes a new source into the packet and calls the one under
test. VALKYRIE_FLOOD says how many sources, 2 million without it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.harness import ORDERS, SOURCE
from support.bpf import META, SECRET, TEST_MAGIC, XDP_PASS, Kernel, loaded
from support.policy import Published, limit, publish
from support.reference.frames import ethernet, ipv4, udp
from support.reference.key import Key, Lengths
from support.reference.parser import parse
from valkyrie.control.abi import BUCKET_SETS, TIME_SHIFT, WAYS, Reason
from valkyrie.control.dataplane import bpf, pins
from valkyrie.control.lab.compile import compiled

SOURCES = int(os.environ.get("VALKYRIE_FLOOD", "2000000"))
BUCKETS = BUCKET_SETS * WAYS
START = 1_000_000_000_000
SECOND = 1_000_000_000
STEP = 50_000
"""Packets of the flood at one instant. The next ones come STEP microseconds later: a million a second."""
STRANGERS = 0x0B000000
"""The flood's sources, 16 million at most: 11.0.0.0/8."""
INNOCENTS = 0x0A000000


def packet(source: int) -> bytes:
    return ethernet(0x0800, ipv4(source.to_bytes(4, "big"), b"\xc6\x33\x64\1", 17, udp(1000, 2000)))


class Flood:
    """Packets from many sources, one each."""

    def __init__(self, program: int, programs: int, orders: int, generator: int) -> None:
        bpf.map_update(programs, bytes(4), struct.pack("=I", program))
        self._orders, self._generator = orders, generator

    def send(self, first: int, count: int, now: int) -> int:
        """One packet of each source from the `first` one on, all at `now`; mean ns a packet."""
        bpf.map_update(self._orders, bytes(4), ORDERS.pack(0, count, STRANGERS + first, 1, 0, 0))
        meta = META.pack(TEST_MAGIC, now, 0, 0, 0)
        frame = packet(STRANGERS) + bytes(18)
        action, _, nanoseconds = bpf.test_run(self._generator, frame, ctx=meta, repeat=count)
        assert action != 0, "the call into the program under test failed"
        return nanoseconds

    def steps(self, count: int = SOURCES) -> Iterator[tuple[int, int]]:
        """Send the flood step by step: the time after each, and its ns a packet."""
        for first in range(0, count, STEP):
            now = START + first * 1000
            yield now, self.send(first, min(STEP, count - first), now)


@pytest.fixture(scope="module")
def _default_table() -> Iterator[tuple[Kernel, Flood]]:
    names = ["orders", "programs"]
    with loaded("flood", BUCKET_SETS) as kernel, compiled(SOURCE, ["harness"], names) as made:
        program = kernel.dp.fd(pins.PROGRAM)
        yield kernel, Flood(program, made.maps["programs"], made.maps["orders"], made.programs["harness"])


@pytest.fixture
def kernel(_default_table: tuple[Kernel, Flood]) -> Kernel:
    """A million buckets, all empty."""
    _default_table[0].reset()
    return _default_table[0]


@pytest.fixture
def flood(_default_table: tuple[Kernel, Flood]) -> Flood:
    return _default_table[1]


def in_debt(kernel: Kernel, published: Published, now: int) -> NDArray[np.uint64]:
    """Tokens each set is short of: one for each packet it has admitted, at one instant."""
    tats = kernel.dp.buckets["tat"]
    level = np.where(tats == 0, 0, tats - np.uint64(now << TIME_SHIFT))
    cost = np.uint64(published.compiled.limits[0]["plan"]["mult"])
    assert not (level % cost).any()
    debts: NDArray[np.uint64] = (level // cost).sum(axis=1)
    return debts


def fingerprint(published: Published, frame: bytes) -> int:
    return Key(src=Lengths(32, 64)).fingerprint(SECRET, published.uid, parse(frame))


def passed(kernel: Kernel, frame: bytes, now: int, count: int) -> int:
    return sum(kernel.run(frame, now).action == XDP_PASS for _ in range(count))


@pytest.mark.parametrize("sources", [BUCKETS, max(SOURCES, 2 * BUCKETS)])
def test_overfull_sets_admit_what_their_buckets_hold_and_nothing_more(
    kernel: Kernel, flood: Flood, sources: int
) -> None:
    generous = publish(kernel, [limit(rate="1/h", burst="1000", key="src")])
    flood.send(0, sources, START)
    met = in_debt(kernel, generous, START)
    used = int(np.count_nonzero(kernel.dp.buckets["fingerprint"]))
    assert int(met.sum()) == sources == kernel.limit_counters(generous.slot)["passed"]
    assert kernel.table_counter("inserted") == sources
    assert kernel.table_counter("evicted_live") == sources - used > 0
    kernel.reset()
    strict = publish(kernel, [limit(rate="1/h", burst="1", key="src")])
    for again in (sources, BUCKETS):
        flood.send(0, again, START)
        assert kernel.limit_counters(strict.slot)["passed"] == int(np.minimum(met, WAYS).sum()) <= BUCKETS
    assert Reason.CONTENDED not in kernel.reasons()


def test_no_source_passes_its_limit_while_the_flood_pushes_its_bucket_out(
    kernel: Kernel, flood: Flood
) -> None:
    published = publish(kernel, [limit(rate="10/min", burst="2", key="src")])
    watched = [packet(INNOCENTS + n) for n in range(300)]
    own = [fingerprint(published, frame) for frame in watched]
    admitted = [passed(kernel, frame, START, 5) for frame in watched]
    assert admitted == [2] * len(watched)
    pushed_out: set[int] = set()
    for now, _ in flood.steps():
        kept = set(kernel.dp.buckets["fingerprint"][[f % BUCKET_SETS for f in own]].ravel().tolist())
        pushed_out.update(n for n, f in enumerate(own) if f not in kept)
        for n, frame in enumerate(watched):
            admitted[n] += passed(kernel, frame, now, 1)
            assert admitted[n] <= 2 + (now - START) / (6 * SECOND)
    assert len(pushed_out) > len(watched) // 4
    assert kernel.table_counter("evicted_live") > 0


def test_a_flood_whose_buckets_are_idle_again_forgets_no_innocent_one(kernel: Kernel, flood: Flood) -> None:
    innocent = limit(rate="1/h", burst="10", key="src", match="src 10.0.0.0/8", name="innocent")
    stranger = limit(rate="1000/s", burst="1", key="src", match="src 11.0.0.0/8", name="stranger")
    publish(kernel, [innocent, stranger])
    emptied = [packet(INNOCENTS + n) for n in range(500)]
    half_used = [packet(INNOCENTS + 1000 + n) for n in range(500)]
    assert {passed(kernel, frame, START, 12) for frame in emptied} == {10}
    assert {passed(kernel, frame, START, 5) for frame in half_used} == {5}
    now = [now for now, _ in flood.steps()][-1]
    assert kernel.table_counter("inserted") > SOURCES * 0.99
    assert kernel.table_counter("evicted_live") == 0
    assert {passed(kernel, frame, now, 3) for frame in emptied} == {0}
    assert {passed(kernel, frame, now, 7) for frame in half_used} == {5}


def test_in_a_table_of_live_buckets_the_one_deepest_in_debt_is_not_the_one_to_go(
    kernel: Kernel, flood: Flood
) -> None:
    published = publish(kernel, [limit(rate="1/h", burst="200", key="src")])
    emptied = [packet(INNOCENTS + n) for n in range(300)]
    assert {passed(kernel, frame, START, 201) for frame in emptied} == {200}
    flood.send(0, 2 * BUCKETS, START)
    assert kernel.table_counter("evicted_live") > BUCKETS
    assert {fingerprint(published, frame) for frame in emptied} <= set(kernel.buckets())
    assert {passed(kernel, frame, START + SECOND, 3) for frame in emptied} == {0}


def test_a_packet_costs_no_more_when_the_table_is_overfull(kernel: Kernel, flood: Flood) -> None:
    """Far from exact, and so beyond what else the machine does; the benchmark measures it."""
    publish(kernel, [limit(rate="1/h", burst="1000", key="src")])
    taken = [nanoseconds for _, nanoseconds in flood.steps(2 * BUCKETS)]
    quarter = len(taken) // 4
    assert median(taken[-quarter:]) < 3 * median(taken[quarter : 2 * quarter])
