# SPDX-License-Identifier: Apache-2.0
"""A dashboard's panels as SVG, laid out as Grafana does, on a grid of 24 columns. Pure."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

COLUMN, LINE, GAP, EDGE = 54, 34, 6, 12  # pixels; panels stand in cells of COLUMN by LINE
LEFT, RIGHT, TOP, AXIS, ROW = 62, 12, 34, 20, 16  # within a time series' panel
MOST_ROWS = 4  # of a legend; more would need the scroll bar of a browser
GROUND, PANEL, BORDER, GRID, TEXT, FAINT = "#111217", "#181b1f", "#2c3235", "#26292e", "#ccccdc", "#8e8e9a"
COLOURS = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#56a64b", "#fade2a",
)  # fmt: skip
UNITS = {"pps": " p/s", "ops": " ops/s", "reqps": " req/s", "Bps": "B/s", "none": ""}
THOUSANDS, BINARY = ("", "k", "M", "G", "T"), ("B", "KiB", "MiB", "GiB", "TiB")
SPANS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


@dataclass(frozen=True)
class Line:
    """A series: its name in the legend, and (unix seconds, value); a value may be NaN."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def known(self) -> list[float]:
        return [value for _, value in self.points if not math.isnan(value)]

    @property
    def last(self) -> float:
        return self.known[-1]


def figure(value: float, unit: str) -> str:
    """A value as Grafana writes it in this unit."""
    if unit == "percentunit":
        return f"{_short(value * 100)}%"
    if unit == "s":
        word, size = next(
            (one for one in SPANS if abs(value) >= one[1]), SPANS[3] if value == 0 else SPANS[-1]
        )
        return f"{_short(value / size)} {word}"
    base = 1024 if unit == "bytes" else 1000
    power = min(4, int(math.log(abs(value), base))) if abs(value) >= base else 0
    short = _short(value / base**power)
    if unit == "bytes":
        return f"{short} {BINARY[power]}"
    word = f"{THOUSANDS[power]}{UNITS[unit].lstrip()}"
    return f"{short} {word}" if word else short


def _short(value: float) -> str:
    """Three digits that count."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{min(digits, 2)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dashboard(
    board: Mapping[str, Any], series: Mapping[int, Sequence[Line]], span: tuple[float, float]
) -> str:
    """The SVG text. `series` by the panel's id."""
    width = 24 * COLUMN + 2 * EDGE
    height = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in board["panels"]) * LINE + 2 * EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" fill="{TEXT}"',
        ' font-family="Inter, Helvetica, Arial, sans-serif" font-size="12">',
        f"<title>{escape(board['title'])}</title>",
        f'<rect width="{width}" height="{height}" fill="{GROUND}"/>',
    ]
    for panel in board["panels"]:
        at = panel["gridPos"]
        x, y = EDGE + at["x"] * COLUMN, EDGE + at["y"] * LINE
        wide, high = at["w"] * COLUMN - GAP, at["h"] * LINE - GAP
        draw = {"row": _row, "stat": _stat, "timeseries": _timeseries}[panel["type"]]
        inner = draw(panel, list(series.get(panel["id"], ())), (wide, high), span)
        parts += [f'<g transform="translate({x} {y})">', *inner, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(panel: Mapping[str, Any], _: Sequence[Line], size: tuple[int, int], __: Any) -> list[str]:
    return [_text(4, size[1] / 2 + 6, f"⌄  {panel['title']}", size=15, weight=500)]


def _framed(panel: Mapping[str, Any], size: tuple[int, int]) -> list[str]:
    frame = f'<rect width="{size[0]}" height="{size[1]}" rx="3" fill="{PANEL}" stroke="{BORDER}"/>'
    return [frame, _text(10, 20, panel["title"], size=13, weight=500)]


def _stat(
    panel: Mapping[str, Any], lines: Sequence[Line], size: tuple[int, int], span: tuple[float, float]
) -> list[str]:
    """The last value, above the area of all."""
    parts, (wide, high) = _framed(panel, size), size
    if not lines:
        return [*parts, _text(wide / 2, high / 2 + 16, "No data", "middle", FAINT)]
    line = lines[0]
    if panel["options"].get("textMode") == "name":
        return [*parts, _text(wide / 2, high / 2 + 20, line.name, "middle", COLOURS[0], 30)]
    top = max(line.known) or 1.0
    places = [(_across(when, span, 0, wide), high - value / top * (high - 84)) for when, value in line.points]
    area = " ".join(f"{a:.0f},{d:.0f}" for a, d in [(0, high), *places, (wide, high)])
    parts.append(f'<polygon points="{area}" fill="{COLOURS[0]}" fill-opacity="0.18"/>')
    shown = figure(line.last, panel["fieldConfig"]["defaults"]["unit"])
    return [*parts, _text(wide / 2, high / 2 + 14, shown, "middle", COLOURS[0], 30)]


def _timeseries(
    panel: Mapping[str, Any], lines: Sequence[Line], size: tuple[int, int], span: tuple[float, float]
) -> list[str]:
    parts, (wide, high) = _framed(panel, size), size
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if not lines:
        return [*parts, _text(wide / 2, high / 2, "No data", "middle", FAINT)]
    ordered = sorted(lines, key=lambda one: -max(one.known))
    rows = min(MOST_ROWS, len(ordered)) + (len(ordered) > MOST_ROWS)
    bottom = high - AXIS - ROW * (rows + 1) - 8
    ticks = _ticks(max(max(one.known) for one in lines) or 1.0, 2 if unit == "bytes" else 10)

    def down(value: float) -> float:
        return bottom - value / ticks[-1] * (bottom - TOP)

    for tick in ticks:
        parts.append(_rule(LEFT, down(tick), wide - RIGHT, down(tick)))
        parts.append(_text(LEFT - 6, down(tick) + 4, figure(tick, unit), "end", FAINT, 11))
    for when in _moments(span):
        across = _across(when, span, LEFT, wide - RIGHT)
        parts.append(_rule(across, TOP, across, bottom))
        shown = time.strftime("%H:%M:%S", time.gmtime(when))
        parts.append(_text(across, bottom + 14, shown, "middle", FAINT, 11))
    for number, line in reversed(list(enumerate(ordered))):
        parts += _drawn(line, number, lambda when: _across(when, span, LEFT, wide - RIGHT), down)
    return [*parts, *_legend(ordered, unit, wide, bottom + AXIS + 14)]


def _drawn(line: Line, number: int, across: Any, down: Any) -> list[str]:
    """A polyline for each stretch without a gap."""
    parts = []
    for known, stretch in groupby(line.points, key=lambda point: not math.isnan(point[1])):
        if known:
            path = " ".join(f"{across(when):.1f},{down(value):.1f}" for when, value in stretch)
            colour = COLOURS[number % len(COLOURS)]
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    return parts


def _legend(lines: Sequence[Line], unit: str, wide: int, top: float) -> list[str]:
    last, most = wide - 84, wide - RIGHT
    parts = [
        _text(12, top, "Name", fill="#6e9fff", size=11),
        _text(last, top, "Last", "end", "#6e9fff", 11),
        _text(most, top, "Max", "end", "#6e9fff", 11),
    ]
    room = int((last - 90) / 6.2)
    for number, line in enumerate(lines[:MOST_ROWS]):
        y, name = top + ROW * (number + 1), line.name
        name = name if len(name) <= room else f"{name[: room - 1]}…"
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="12" y="{y - 6:.0f}" width="14" height="4" rx="2" fill="{colour}"/>')
        parts.append(_text(32, y, name))
        parts.append(_text(last, y, figure(line.last, unit), "end"))
        parts.append(_text(most, y, figure(max(line.known), unit), "end"))
    left = len(lines) - MOST_ROWS
    return (
        [*parts, _text(32, top + ROW * (MOST_ROWS + 1), f"and {left} more", fill=FAINT)]
        if left > 0
        else parts
    )


def _ticks(most: float, base: int) -> list[float]:
    """From 0 to at least the largest value, in few round steps."""
    power = float(base) ** math.floor(math.log(most / 3, base))
    step = next(one * power for one in (1, 2, 5, 10) if most <= 4 * one * power)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def _moments(span: tuple[float, float]) -> list[float]:
    step = 30.0 if span[1] - span[0] < 240 else 60.0
    first = math.ceil((span[0] + step / 4) / step) * step
    return [first + step * n for n in range(int((span[1] - step / 4 - first) / step) + 1)]


def _across(when: float, span: tuple[float, float], left: float, right: float) -> float:
    return left + (when - span[0]) / (span[1] - span[0]) * (right - left)


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}"/>'


def _text(
    across: float,
    down: float,
    text: str,
    anchor: str = "start",
    fill: str = "",
    size: int = 12,
    weight: int = 400,
) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"' + (
        f' fill="{fill}"' if fill else ""
    )
    return f'<text x="{across:.1f}" y="{down:.1f}" {style}>{escape(text)}</text>'
