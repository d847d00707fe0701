# SPDX-License-Identifier: Apache-2.0
"""A line chart as SVG: x on a logarithmic scale, a legend beside it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

from bench.rows import number

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 48, 56
COLOURS = ("#0b6e99", "#c2410c", "#6b7280", "#15803d", "#7c3aed")
DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2")
MARK = 3.5
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """What is on an axis, and where its ticks are; the first and last are its ends."""

    label: str
    ticks: Sequence[float]

    def share(self, value: float) -> float:
        """0 at the first tick, 1 at the last."""
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])


def chart(
    title: str, x: Axis, y: Axis, series: Mapping[str, Points], *, band: tuple[float, float] | None = None
) -> str:
    """The SVG text. `band`: values of y that are shaded."""
    logarithmic = Axis(x.label, [log10(tick) for tick in x.ticks])

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = LEFT + logarithmic.share(log10(point[0])) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y.share(point[1]) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"',
        ' font-family="sans-serif" font-size="13" fill="#1f2937">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="26" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    if band is not None:
        (_, low), (_, high) = place((x.ticks[0], band[0])), place((x.ticks[0], band[1]))
        parts.append(_rectangle(LEFT, high, WIDTH - RIGHT - LEFT, low - high))
    for tick in y.ticks:
        _, down = place((x.ticks[0], tick))
        parts.append(_line(LEFT, down, WIDTH - RIGHT, down))
        parts.append(_text(LEFT - 8, down + 4, number(tick), "end"))
    for tick in x.ticks:
        across, _ = place((tick, y.ticks[0]))
        parts.append(_text(across, HEIGHT - BOTTOM + 20, f"{tick:,.0f}", "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - 12, x.label, "middle"))
    parts.append(
        f'<text transform="translate(18 {(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y.label)}</text>'
    )
    for index, (name, points) in enumerate(series.items()):
        parts += _series(index, name, [place(point) for point in points])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _series(index: int, name: str, places: Points) -> list[str]:
    colour, dash = COLOURS[index], DASHES[index]
    style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
    row = TOP + 10 + 24 * index
    legend = WIDTH - RIGHT + 16
    marks = [f'<circle cx="{a:.1f}" cy="{d:.1f}" r="{MARK}" fill="{colour}"/>' for a, d in places]
    return [
        f'<polyline points="{path}" {style}/>',
        *marks,
        f'<polyline points="{legend},{row} {legend + 30},{row}" {style}/>',
        _text(legend + 38, row + 4, name, "start"),
    ]


def _text(across: float, down: float, text: str, anchor: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e5e7eb"/>'


def _rectangle(across: float, down: float, width: float, height: float) -> str:
    return f'<rect x="{across:.1f}" y="{down:.1f}" width="{width:.1f}" height="{height:.1f}" fill="#dcfce7"/>'
