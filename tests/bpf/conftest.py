# SPDX-License-Identifier: Apache-2.0
"""The loaded program, built once a session for each size of table."""

import os
from collections.abc import Iterator

import pytest

from support.bpf import Kernel, loaded
from support.calls import Calls, served

SMALL_SETS = 16
"""128 buckets: small enough that random traffic fills it."""
LARGE_SETS = 8192


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("loading a BPF program needs root")


@pytest.fixture(scope="session")
def small_table() -> Iterator[Kernel]:
    """128 buckets; for tests that reset() it themselves, once for each generated example."""
    with loaded("test", SMALL_SETS) as kernel:
        yield kernel


@pytest.fixture(scope="session")
def tiny_table() -> Iterator[Kernel]:
    """One set, eight buckets: always full. For tests that reset() it themselves."""
    with loaded("tiny", 1) as kernel:
        yield kernel


@pytest.fixture(scope="session")
def _large_table() -> Iterator[Kernel]:
    with loaded("large", LARGE_SETS) as kernel:
        yield kernel


@pytest.fixture
def roomy(_large_table: Kernel) -> Kernel:
    """An empty table in which nothing meets by chance, and no rules."""
    _large_table.reset()
    return _large_table


@pytest.fixture
def kernel(small_table: Kernel) -> Kernel:
    """An empty table of 128 buckets and no rules."""
    small_table.reset()
    return small_table


@pytest.fixture(scope="session")
def _served() -> Iterator[Calls]:
    with served("calls", LARGE_SETS) as calls:
        yield calls


@pytest.fixture
def calls(_served: Calls) -> Calls:
    """The programs for calls and for packets over one empty table, and no values."""
    _served.kernel.reset()
    _served.forget_values()
    _served.book.asked = 0
    return _served
