# SPDX-License-Identifier: Apache-2.0
"""One line of a benchmark's result, and how it is written down."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

COMPARE = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Row:
    """`budget` is a bound as "<= 1.1", or None for a figure that is only told; `ok`: it is kept."""

    name: str
    value: float
    unit: str
    budget: str | None
    ok: bool


def row(name: str, value: float, unit: str, budget: str | None = None) -> Row:
    """A row, held against its budget."""
    ok = True
    if budget is not None:
        sign, bound = budget.split()
        ok = COMPARE[sign](value, float(bound))
    return Row(name, round(value, 6), unit, budget, ok)


def number(value: float) -> str:
    """Three or four digits that count, thousands parted."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def line(entry: Row) -> str:
    """The row for a terminal."""
    verdict = "" if entry.budget is None else "ok" if entry.ok else "MISSED"
    return f"{entry.name:<76} {number(entry.value):>12} {entry.unit:<12} {entry.budget or '':>9} {verdict}"


def write_json(path: Path, rows: Iterable[Row]) -> None:
    """A list of {name, value, unit, budget, ok}."""
    path.write_text(json.dumps([asdict(entry) for entry in rows], indent=1) + "\n")


def read_json(path: Path) -> list[Row]:
    """What write_json wrote."""
    return [Row(**entry) for entry in json.loads(path.read_text())]
