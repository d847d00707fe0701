# SPDX-License-Identifier: Apache-2.0
"""Figures of rules as people write them: `1000/s`, `20%`, `5m`; as numbers, and back for reading."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from valkyrie.control.enums import Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.units import format_duration, format_rate_per_second, parse_duration, parse_rate

Unit = Literal["rate", "share", "time", "fact"]

SECOND_NS = 10**9
MAX_TEXT = 64
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%")


def parse_per_second(text: str) -> float:
    """Packets or other things a second, of `1000/s` or `10/h`. Raises InvalidInput."""
    return float(parse_rate(text, Measure.PACKETS).per_second)


def parse_share(text: str) -> float:
    """0 to 1, of `20%`. Raises InvalidInput."""
    found = _PERCENT.fullmatch(text.strip()) if len(text) <= MAX_TEXT else None
    if found is None or not 0 <= float(found[1]) <= 100:
        shown = text[:MAX_TEXT]
        raise InvalidInput(f"{shown!r} is not a share", "from 0% to 100%, as 20%", shown)
    return float(found[1]) / 100


def parse_seconds(text: str) -> float:
    """Seconds of `5m`, and of `0s`. Raises InvalidInput."""
    return 0.0 if text.strip() in ("0", "0s") else parse_duration(text) / SECOND_NS


def seconds_text(seconds: float) -> str:
    """`1h30m`, two units at most."""
    return format_duration(round(max(0.0, seconds)) * SECOND_NS, 2)


def rate_text(per_second: float) -> str:
    """`1500/s`; what is less than 1 a second, by the hour."""
    if 0 < per_second < 1:
        return f"{per_second * 3600:.0f}/h"
    return format_rate_per_second(per_second, Measure.PACKETS)


def share_text(share: float) -> str:
    return f"{share * 100:.1f}".removesuffix(".0") + "%"


def fact_text(value: float) -> str:
    return "yes" if value > 0 else "no"


def no_figure(text: str) -> float:
    raise InvalidInput(f"{text[:MAX_TEXT]!r} has no place here", "what is or is not so has no figure")


PARSE: dict[Unit, Callable[[str], float]] = {
    "rate": parse_per_second,
    "share": parse_share,
    "time": parse_seconds,
    "fact": no_figure,
}
TEXT: dict[Unit, Callable[[float], str]] = {
    "rate": rate_text,
    "share": share_text,
    "time": seconds_text,
    "fact": fact_text,
}
