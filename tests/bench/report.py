# SPDX-License-Identifier: Apache-2.0
"""Put the figures of a run into docs/performance.md, and draw its charts.

    python -m bench.report FILE

FILE is what `--json` wrote, of a whole run, or of all benchmarks of packets or of stores.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.accuracy import RATES
from bench.chart import Axis, chart
from bench.nanoseconds import FEW, MANY, told
from bench.rows import Row, number, read_json

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
STORE_BEGIN, STORE_END = "<!-- store figures: begin -->\n", "<!-- store figures: end -->\n"
OTHER_BEGIN, OTHER_END = "<!-- other figures: begin -->\n", "<!-- other figures: end -->\n"
OF_STORES = re.compile(r"redis|valkey|kernel (try_consume|get|set)|bare test run of")
ACCURACY = re.compile(r"admitted / allowed, ([\d,]+)/s, (\w+), (.*)")


def table(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table; with budgets if they have any."""
    rows = list(rows)
    budgets = any(entry.budget for entry in rows)
    lines = (
        ["| what | measured | must | |", "|---|---:|---:|---|"]
        if budgets
        else ["| what | measured |", "|---|---:|"]
    )
    for entry in rows:
        line = f"| {entry.name} | {number(entry.value)} {entry.unit} |"
        if budgets:
            bound = (entry.budget or "").replace("<=", "≤").replace(">=", "≥")
            verdict = "" if entry.budget is None else "kept" if entry.ok else "**missed**"
            line += f" {bound} | {verdict} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def nanoseconds_chart(values: Mapping[str, float]) -> str:
    """ns a packet by live buckets."""
    sizes = [(live, told(live, places, entries)) for live, places, entries, _ in (*FEW, MANY[0])]
    named = (("reference", "LRU hash, GCRA"), ("police", "Valkyrie"), ("null", "no program"))
    series = {
        legend: [(live, values[f"ns a packet, {size}: {name}"]) for live, size in sizes]
        for name, legend in named
    }
    top = 100 * (1 + int(max(max(point[1] for point in points) for points in series.values()) // 100))
    ticks = range(0, top + 1, 100)
    x = Axis("live buckets", [live for live, _ in sizes])
    return chart("Nanoseconds a packet, one limit per source", x, Axis("ns a packet", ticks), series)


def accuracy_chart(values: Mapping[str, float]) -> str:
    """What is admitted of what is allowed, by rate."""
    series: dict[str, list[tuple[float, float]]] = {}
    for name, value in values.items():
        if found := ACCURACY.fullmatch(name):
            rate, key, where = found.groups()
            series.setdefault(f"{key}, {where}", []).append((float(rate.replace(",", "")), 100 * value))
    y = Axis("admitted, % of burst + rate * time", (98, 98.5, 99, 99.5, 100, 100.5))
    title = "Accuracy under overload: the shaded band is the budget"
    return chart(title, Axis("limit, packets/s", RATES), y, series, band=(99, 100))


def between(text: str, begin: str, end: str, fresh: str) -> str:
    """The text with what stands between two marks replaced."""
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return before + begin + "\n" + fresh + "\n" + end + after


def of_packets(text: str, rows: Sequence[Row]) -> str:
    """The page with the figures of packets; draws their charts."""
    values = {entry.name: entry.value for entry in rows}
    (DOCS / "images" / "performance-nanoseconds.svg").write_text(nanoseconds_chart(values))
    (DOCS / "images" / "performance-accuracy.svg").write_text(accuracy_chart(values))
    text = between(text, BEGIN, END, table(entry for entry in rows if entry.budget))
    return between(text, OTHER_BEGIN, OTHER_END, table(entry for entry in rows if not entry.budget))


def main(path: str) -> None:
    """Write the tables and the charts."""
    rows = read_json(Path(path))
    stores = [entry for entry in rows if OF_STORES.search(entry.name)]
    packets = [entry for entry in rows if entry not in stores]
    page = DOCS / "performance.md"
    text = page.read_text()
    if packets:
        text = of_packets(text, packets)
    if stores:
        text = between(text, STORE_BEGIN, STORE_END, table(stores))
    page.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
