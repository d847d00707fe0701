# SPDX-License-Identifier: Apache-2.0
"""Latencies as on a host with nothing else to do: this process and those that it starts go first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In the kernel's real-time class, where a process that wakes need not wait for another's time slice of
    some milliseconds to end, as it does at any nice level. Where that is not allowed: as it is.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
