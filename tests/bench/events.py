# SPDX-License-Identifier: Apache-2.0
"""Drop events that one core handles: read from the kernel's ring, counted in top talkers, kept, and told."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from statistics import median
from typing import Any, cast

import numpy as np

from bench.harness import Case, Harness, Sources, udp4
from bench.rows import Row, row
from support.bpf import Kernel, loaded
from support.fake_engine import FakeEngine
from support.policy import publish
from valkyrie.control import abi
from valkyrie.control.dataplane import pins
from valkyrie.control.dataplane.events import EventReader
from valkyrie.control.limits import Ban, Desired
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.drops import Drops
from valkyrie.control.service.events import Follower, Hub
from valkyrie.control.service.talkers import Talkers

SOURCES = {"of 1,000 sources": 1_000, "of a million forged sources": 1_000_000}
BUDGET = ">= 100000"
ROUNDS = 20
RATE = 1_000_000_000  # held back: none
RING = abi.EVENT_RING_BYTES // (abi.EVENT.itemsize + 8)


class _Core:
    """What Drops asks of the core, with no limits."""

    class world:  # noqa: N801 - stands for an attribute
        name_of_slot: dict[int, str] = {}  # noqa: RUF012 - never written
        limits: dict[str, Any] = {}  # noqa: RUF012

    class settings:  # noqa: N801
        class events:  # noqa: N801
            sample = 1

    engine = FakeEngine()
    clock = Clock()


def run() -> Iterator[Row]:
    with Harness() as harness, loaded("events", 1024) as kernel:
        bans = Desired.of(bans=[Ban(prefix="0.0.0.0/0")])
        publish(kernel, desired=bans, event_sample=1, event_rate=RATE)
        for name, sources in SOURCES.items():
            case = Case(kernel.dp.fd(pins.PROGRAM), udp4(), Sources(sources))
            for followed in (False, True):
                rates = asyncio.run(_rates(harness, kernel, case, followed=followed))
                told = f"events handled, {name}{', one follower' if followed else ''}"
                yield row(told, median(rates), "events/s", BUDGET)


async def _rates(harness: Harness, kernel: Kernel, case: Case, *, followed: bool) -> list[float]:
    """Events a second of CPU time, of each round."""
    hub, talkers = Hub(Clock()), Talkers(time.monotonic, 1)
    drops = Drops(cast("Any", _Core()), hub, talkers)
    follower = hub.join() if followed else None
    rates = []
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with EventReader(kernel.dp.pin_dir) as reader:
        for turn in range(ROUNDS):
            harness.run(case, RING, shuffle=bool(turn % 2))
            began, count = time.process_time(), 0
            while len(batch := reader.batch()):
                drops.take(batch)
                count += len(batch)
                _read(follower)
            rates.append(count / (time.process_time() - began))
            assert count > RING // 2, "the ring was not filled"
    assert np.isfinite(talkers.top(1)[0]["dropped"])
    return rates


def _read(follower: Follower | None) -> None:
    while follower is not None and follower._queue.qsize():
        follower._queue.get_nowait()
