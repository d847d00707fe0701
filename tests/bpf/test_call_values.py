# SPDX-License-Identifier: Apache-2.0
"""Values in the kernel: whole, exact to the nanosecond in expiring, never lost in sums, bounded."""

import os
import time
from collections.abc import Iterator
from multiprocessing import get_context

import pytest

from support.bpf import TEST_MAGIC
from support.calls import ROOM, Calls
from valkyrie.adapters.errors import ConsistencyError, StoreUnavailable
from valkyrie.adapters.yggdrasil.values import Values
from valkyrie.control.dataplane import bpf, build, values

NOW = 1_000_000_000_000
MS = 1_000_000


@pytest.fixture
def kept(calls: Calls) -> Iterator[Values]:
    """At a time that the test sets."""
    opened = Values(calls.kernel.dp.pin_dir, TEST_MAGIC, NOW)
    yield opened
    opened.flush()
    opened.close()


@pytest.mark.parametrize(
    "value", [b"", b"a", b"1234567", b"x" * 1023, os.urandom(1024), b"007", b"-0", b"+1", b"9" * 19]
)
def test_what_is_set_is_what_is_got(kept: Values, value: bytes) -> None:
    kept.put("k", b"y" * 1024, None)
    kept.put("k", value, None)
    assert kept.get("k") == value


@pytest.mark.parametrize("number", [0, 7, -1, 2**63 - 1, -(2**63)])
def test_integers_come_back_as_they_were_written(kept: Values, number: int) -> None:
    kept.put("k", str(number).encode(), None)
    assert kept.get("k") == str(number).encode()
    assert kept.add("k", 0, None) == number


def test_a_value_expires_to_the_nanosecond(kept: Values) -> None:
    kept.put("k", b"v", 5)
    kept.now_ns = NOW + 5 * MS - 1
    assert (kept.get("k"), kept.lasts("k")) == (b"v", (True, 1))
    kept.now_ns = NOW + 5 * MS
    assert (kept.get("k"), kept.lasts("k"), kept.delete("k")) == (None, (False, 0), False)


def test_setting_again_forgets_the_expiry(kept: Values) -> None:
    kept.put("k", b"v", 5)
    kept.put("k", b"w", None)
    kept.now_ns = NOW + 60_000 * MS
    assert (kept.get("k"), kept.lasts("k")) == (b"w", (True, 0))


def test_a_sum_keeps_the_expiry_of_its_first_call(kept: Values) -> None:
    assert kept.add("n", 5, 10) == 5
    kept.now_ns = NOW + 9 * MS
    assert (kept.add("n", -7, 10_000), kept.lasts("n")) == (-2, (True, MS))
    kept.now_ns = NOW + 10 * MS
    assert (kept.add("n", 1, None), kept.lasts("n")) == (1, (True, 0))


@pytest.mark.parametrize(
    ("value", "amount"),
    [(b"text", 1), (b"01", 1), (b"9223372036854775807", 1), (b"-9223372036854775808", -1)],
)
def test_what_has_no_sum_is_left_as_it_was(kept: Values, value: bytes, amount: int) -> None:
    kept.put("k", value, None)
    with pytest.raises(ConsistencyError):
        kept.add("k", amount, None)
    assert kept.get("k") == value


def test_the_clock_of_values_runs_by_itself(calls: Calls) -> None:
    opened = Values(calls.kernel.dp.pin_dir)
    began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    opened.put("k", b"v", 20)
    while opened.get("k") is not None:
        assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began < 10_000 * MS
    assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began >= 20 * MS
    opened.close()


def test_a_full_map_says_what_to_do_and_still_takes_what_it_has(kept: Values) -> None:
    for i in range(ROOM):
        kept.put(f"k{i}", b"v", None)
    with pytest.raises(StoreUnavailable, match=str(ROOM)) as caught:
        kept.put("one more", b"v", None)
    assert "max_values" in caught.value.hint
    kept.put("k3", b"w", None)
    assert (kept.get("k3"), kept.get("one more")) == (b"w", None)
    assert kept.delete("k0")
    kept.put("one more", b"v", None)


def test_what_has_expired_makes_room(kept: Values) -> None:
    for i in range(ROOM):
        kept.put(f"k{i}", b"v", None if i % 2 else 5)
    kept.now_ns += 5 * MS
    for i in range(ROOM // 2):
        kept.put(f"more {i}", b"v", None)
    with pytest.raises(StoreUnavailable):
        kept.put("one more", b"v", None)
    assert kept.get("k1") == b"v"


def test_processes_that_add_at_once_lose_nothing(calls: Calls) -> None:
    pin_dir, context = calls.kernel.dp.pin_dir, get_context("fork")
    barrier = context.Barrier(4)

    def add() -> None:
        opened = Values(pin_dir)
        barrier.wait(60)
        for i in range(5000):
            opened.add("sum", 1, None)
            opened.add(f"each {i % 7}", 1, None)

    workers = [context.Process(target=add) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    opened = Values(pin_dir)
    assert opened.get("sum") == b"20000"
    assert sum(int(opened.get(f"each {i}") or 0) for i in range(7)) == 20_000
    opened.close()


def test_a_reader_never_sees_half_of_a_value(calls: Calls) -> None:
    pin_dir, context = calls.kernel.dp.pin_dir, get_context("fork")
    stop = context.Event()

    def write(byte: bytes) -> None:
        opened = Values(pin_dir)
        while not stop.is_set():
            opened.put("k", byte * 1024, None)
            opened.delete("k")

    writers = [context.Process(target=write, args=(byte,)) for byte in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    opened = Values(pin_dir)
    seen: set[bytes | None] = set()
    try:
        deadline = time.monotonic() + 20
        while len(seen) < 4 and time.monotonic() < deadline:
            for _ in range(2000):
                seen.add(opened.get("k"))
    finally:
        stop.set()
        for writer in writers:
            writer.join(60)
        opened.close()
    assert seen == {None, b"a" * 1024, b"b" * 1024, b"c" * 1024}


def test_a_map_of_another_size_keeps_the_values_and_the_old_one_says_that_it_is_gone(calls: Calls) -> None:
    pin_dir = calls.kernel.dp.pin_dir
    opened = Values(pin_dir, TEST_MAGIC, NOW)
    opened.put("k", b"v", 1000)
    opened.add("n", 41, None)
    try:
        build.run_loader(pin_dir, calls.kernel.dp.sizes, more=("--values", str(2 * ROOM)))
        assert values.room(pin_dir) == 2 * ROOM
        assert (opened.get("k"), opened.lasts("k"), opened.add("n", 1, None)) == (b"v", (True, 1000 * MS), 42)
    finally:
        build.run_loader(pin_dir, calls.kernel.dp.sizes, more=("--values", str(ROOM)))
    assert opened.get("n") == b"42"
    opened.close()


def test_values_take_memory_as_they_come(calls: Calls) -> None:
    with bpf.opened(calls.kernel.dp.pin_dir / values.VALUES) as fd:
        assert bpf.map_info(fd).flags & bpf.F_NO_PREALLOC
