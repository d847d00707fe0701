# SPDX-License-Identifier: Apache-2.0
"""What a store's operations take: counts, errors and a window of recent durations of each."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from time import perf_counter_ns
from types import TracebackType

from valkyrie.adapters.store import OperationStats
from valkyrie.control.errors import InvalidInput, NotFound

WINDOW = 1024  # recent calls of an operation that its quantiles are of
NS_A_MS = 1e6
BOUNDS_MS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0)
_BOUNDS_NS = tuple(round(bound * NS_A_MS) for bound in BOUNDS_MS)
CALLERS = (InvalidInput, NotFound)  # the caller's mistakes, no failures of the store


class _Operation:
    __slots__ = ("count", "errors", "histogram", "recent", "total")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.total = 0
        self.histogram = [0] * (len(BOUNDS_MS) + 1)
        self.recent: deque[int] = deque(maxlen=WINDOW)

    def snapshot(self) -> OperationStats:
        ordered = sorted(self.recent)
        p50, p95, p99 = (_quantile(ordered, percent) for percent in (50, 95, 99))
        total = self.total / NS_A_MS
        return OperationStats(self.count, self.errors, p50, p95, p99, total, tuple(self.histogram))


class _Timing:
    """One call, from entering to leaving."""

    __slots__ = ("_began", "_operation")

    def __init__(self, operation: _Operation) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        self._began = perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        operation = self._operation
        took = perf_counter_ns() - self._began
        operation.recent.append(took)
        operation.total += took
        operation.histogram[bisect_left(_BOUNDS_NS, took)] += 1
        operation.count += 1
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, CALLERS):
            operation.errors += 1


class OperationMeter:
    """`with meter.timed("get"): ...` around each call. For one thread; any number of tasks in it.

    What raises counts as an error, but for what the caller got wrong and for a cancelled task.
    """

    __slots__ = ("_operations",)

    def __init__(self) -> None:
        self._operations: dict[str, _Operation] = {}

    def timed(self, operation: str) -> _Timing:
        """`operation` is a method's name: each one seen is kept, so it must not come from input."""
        found = self._operations.get(operation)
        if found is None:
            found = self._operations[operation] = _Operation()
        return _Timing(found)

    def snapshot(self) -> dict[str, OperationStats]:
        """The operations that were called; quantiles are computed here, not while calls run."""
        return {name: operation.snapshot() for name, operation in self._operations.items()}


def _quantile(ordered: list[int], percent: int) -> float:
    """Milliseconds that so many percent of the calls did not exceed (nearest rank); 0 of no calls."""
    if not ordered:
        return 0.0
    return ordered[-(-len(ordered) * percent // 100) - 1] / NS_A_MS
