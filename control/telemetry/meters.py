# SPDX-License-Identifier: Apache-2.0
"""What the daemon counts of itself for snapshots: calls of the API, and a paced scan of the table."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCAN_SHARE = 0.01  # of one core that scans of the table may take
LEAST_S = 1.0  # between two of them


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Requests of one route that ended in one status. `histogram` counts those up to each of BOUNDS_S, and
    last those beyond.
    """

    method: str
    route: str
    status: int
    count: int
    total_s: float
    histogram: tuple[int, ...]


class _Calls:
    __slots__ = ("histogram", "total_s")

    def __init__(self) -> None:
        self.total_s = 0.0
        self.histogram = [0] * (len(BOUNDS_S) + 1)


class ApiMeter:
    """Calls by route and status: as many entries as there are routes and statuses, whatever is asked for.
    For the event loop's thread.
    """

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str, int], _Calls] = {}

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the table's path, never the one that was sent."""
        where = (method, route, status)
        calls = self._calls.get(where)
        if calls is None:
            calls = self._calls[where] = _Calls()
        calls.total_s += seconds
        calls.histogram[bisect_left(BOUNDS_S, seconds)] += 1

    def figures(self) -> tuple[CallFigures, ...]:
        return tuple(
            CallFigures(*where, sum(calls.histogram), calls.total_s, tuple(calls.histogram))
            for where, calls in self._calls.items()
        )


class PacedScan:
    """A number that is dear to find: looked up again only when that keeps within SCAN_SHARE of a core, and
    else as it was. From any thread; whoever comes during a scan waits for it.
    """

    def __init__(self, scan: Callable[[], int], seconds: Callable[[], float]) -> None:
        self._scan = scan
        self._seconds = seconds
        self._lock = threading.Lock()
        self._due = float("-inf")
        self._found = 0

    def __call__(self) -> int:
        with self._lock:
            began = self._seconds()
            if began >= self._due:
                self._found = self._scan()
                took = self._seconds() - began
                self._due = began + max(LEAST_S, took / SCAN_SHARE)
            return self._found


@dataclass(frozen=True, slots=True)
class ExportFigures:
    """Batches of one signal (metrics, traces) for the collector. `dropped`: given up, as a newer one or the
    bound of what waits asked for.
    """

    signal: str
    delivered: int
    failed: int
    dropped: int


class ExportMeter:
    """For the thread that exports and those that look: each count has one writer at a time."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {"metrics": Counter(), "traces": Counter()}

    def note(self, signal: str, outcome: Literal["delivered", "failed", "dropped"], count: int = 1) -> None:
        self._counts[signal][outcome] += count

    def figures(self) -> tuple[ExportFigures, ...]:
        return tuple(
            ExportFigures(signal, counts["delivered"], counts["failed"], counts["dropped"])
            for signal, counts in self._counts.items()
        )


@dataclass(frozen=True, slots=True)
class Meters:
    """Of one service."""

    calls: ApiMeter
    exports: ExportMeter
    occupancy: PacedScan


def make_meters(occupancy: Callable[[], int], seconds: Callable[[], float]) -> Meters:
    return Meters(ApiMeter(), ExportMeter(), PacedScan(occupancy, seconds))
