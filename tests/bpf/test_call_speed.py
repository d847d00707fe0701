# SPDX-License-Identifier: Apache-2.0
"""What a call costs beside a bare test run of the same program in the same minute."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import numpy as np

from support.calls import Calls
from support.policy import limit
from valkyrie.control.dataplane import call
from valkyrie.control.dataplane.call_entry import entry_of
from valkyrie.control.dataplane.keyname import opaque
from valkyrie.control.key import ID

ROUNDS, RUNS = 5, 1000
Times = list[int]


def bare(calls: Calls) -> Callable[[int], int]:
    """The system call alone, on a request that lies there already."""
    limit_of = calls.book.limits["m"]
    position = calls.caller.position(limit_of.uid)
    assert position is not None
    request = call.declared(limit_of.uid, position) + entry_of(opaque("u"), ID, 1)
    run = calls.caller._run
    assert run is not None
    run.packet[: len(request)] = request

    def once(_: int) -> int:
        run.packet[call.POINT_AT] = 0
        began = time.perf_counter_ns()
        run.go(len(request))
        return time.perf_counter_ns() - began

    return once


async def timed(work: Callable[[int], Awaitable[object]], index: int) -> int:
    began = time.perf_counter_ns()
    await work(index)
    return time.perf_counter_ns() - began


async def test_a_call_costs_a_few_bare_runs_and_a_batch_much_less_a_key(calls: Calls) -> None:
    calls.publish([limit("m", rate="1000000/s", key="id")])
    once = bare(calls)
    keys = [f"user {i}" for i in range(256)]
    kinds: dict[str, Times] = {name: [] for name in ("bare", "again", "new", "batch", "set", "get")}
    async with calls.adapter() as store:
        for turn in range(ROUNDS):
            kinds["bare"] += [once(i) for i in range(RUNS)]
            kinds["again"] += [
                await timed(lambda i: store.try_consume(keys[i & 15], limit="m"), i) for i in range(RUNS)
            ]
            first = turn * RUNS
            kinds["new"] += [
                await timed(lambda i: store.try_consume(f"new {i}", limit="m"), first + i)
                for i in range(RUNS)
            ]
            kinds["set"] += [
                await timed(lambda i: store.set(f"k{i & 15}", b"v" * 100), i) for i in range(RUNS // 4)
            ]
            kinds["get"] += [await timed(lambda i: store.get(f"k{i & 15}"), i) for i in range(RUNS // 4)]
            kinds["batch"] += [
                await timed(lambda i: store.consume_batch(keys, limit="m"), i) for i in range(20)
            ]
    p50 = {name: float(np.median(times)) / 1000 for name, times in kinds.items()}
    p99 = {name: float(np.quantile(times, 0.99)) / 1000 for name, times in kinds.items()}
    print(" ".join(f"{name} {p50[name]:.1f}/{p99[name]:.1f}" for name in kinds))  # noqa: T201 - with pytest -s
    assert p50["again"] < 4 * p50["bare"]
    assert p50["new"] < 6 * p50["bare"]
    assert p50["batch"] / len(keys) < p50["bare"]
    assert max(p50["set"], p50["get"]) < 6 * p50["bare"]
