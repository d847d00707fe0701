# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from support.workbench import Bench

ENDS_S = 30.0  # the exporter of telemetry may be in the middle of a delivery, which has its 10 s
TOLD: set[threading.Thread] = set()  # that some test has failed for


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """No thread outlives its test: it would work beside other tests, and they would fail by it."""
    yield
    left = set(threading.enumerate()) - {threading.main_thread()} - TOLD
    if left:
        gc.collect()  # a pool's threads end with the pool
    for thread in left:
        thread.join(ENDS_S)
        TOLD.add(thread)
        assert not thread.is_alive(), f"the thread {thread.name} outlives the test"


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, "eth1", "eth2")
    await made.service.start()
    yield made
    await made.service.close()
