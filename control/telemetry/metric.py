# SPDX-License-Identifier: Apache-2.0
"""What a metric is: its name and unit by OpenTelemetry's conventions, and how a snapshot is read for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from valkyrie.control.telemetry.snapshot import Snapshot

Kind = Literal["counter", "gauge", "histogram"]
# OpenTelemetry's units (UCUM) as Prometheus words them; {annotations} and 1 have no word there.
WORDS = {"s": "seconds", "By": "bytes", "1": "ratio"}


@dataclass(frozen=True, slots=True)
class Distribution:
    """`counts` are those up to each bound, not cumulated, and last those beyond; `total` is the sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


Value: TypeAlias = int | float | Distribution
Point: TypeAlias = tuple[tuple[str, ...], Value]  # the attributes' values in the metric's order
Reader = Callable[[Snapshot], Iterable[Point]]


@dataclass(frozen=True, slots=True)
class Metric:
    """`attributes` name what tells its series apart; `read` gives them."""

    name: str
    kind: Kind
    unit: str
    help: str
    attributes: tuple[str, ...]
    read: Reader

    @property
    def prometheus(self) -> str:
        """The name without the suffixes that Prometheus adds to samples (_total, _bucket...)."""
        name = _word(self.name)
        unit = WORDS.get(self.unit)
        if unit is None or name.endswith(f"_{unit}") or (unit == "ratio" and self.kind == "counter"):
            return name
        return f"{name}_{unit}"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(_word(name) for name in self.attributes)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its series at one moment."""

    metric: Metric
    points: tuple[Point, ...]


def _word(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
