# SPDX-License-Identifier: Apache-2.0
"""Human units in and out: rates, bursts, durations, sizes. All arithmetic is exact integers or fractions.

Rates: `1000/s`, `10/h`, `1M/s` (packets); `50mbit/s`, `2.5MB/s`, `64KiB/s` (bytes).
Without a unit a number counts packets. bit, kbit, mbit, gbit and B, KB, MB, GB are decimal.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction

from valkyrie.control.enums import Measure
from valkyrie.control.errors import InvalidInput

SECOND_NS = 10**9
PERIODS_NS = {"s": SECOND_NS, "m": 60 * SECOND_NS, "min": 60 * SECOND_NS, "h": 3600 * SECOND_NS}
PACKET_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
BYTE_UNITS = {
    "B": 1, "KB": 10**3, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
BIT_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
DURATION_NS = {
    "d": 86400 * SECOND_NS, "h": 3600 * SECOND_NS, "m": 60 * SECOND_NS, "s": SECOND_NS,
    "ms": 10**6, "us": 10**3, "ns": 1,
}  # fmt: skip

MIN_PACKETS = Fraction(1, 3600)  # a second
MAX_PACKETS = Fraction(600 * 10**6)  # 400 Gbit/s of the smallest packets
MIN_BYTES = Fraction(4, 3600)  # 64 KiB, the default burst, still refill within two years
MAX_BYTES = Fraction(50 * 10**9)  # 400 Gbit/s
MAX_DURATION_NS = 3650 * DURATION_NS["d"]
MAX_TEXT = 64  # characters of one figure

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` tokens in `period_ns` nanoseconds, in lowest terms; what a token is says `measure`."""

    amount: int
    period_ns: int
    measure: Measure

    @property
    def per_second(self) -> Fraction:
        """Tokens a second."""
        return Fraction(self.amount * SECOND_NS, self.period_ns)


def parse_rate(text: str, measure: Measure | None = None) -> Rate:
    """The rate that `text` says. `measure` chooses what a byte is counted of (IP packet, unless told).

    Raises InvalidInput for a wrong word, a rate out of range, or a measure that does not fit the unit.
    """
    quantity, slash, period = text.strip().partition("/")
    if not slash:
        what = f"rate {text[:MAX_TEXT]!r} has no period"
        raise InvalidInput(what, "write it as 1000/s, 10/h or 50mbit/s", text[:MAX_TEXT])
    if period not in PERIODS_NS:
        what = f"rate {text[:MAX_TEXT]!r}: unknown period {period[:MAX_TEXT]!r}"
        raise InvalidInput(what, "periods are s, m (or min) and h", period[:MAX_TEXT])
    tokens, in_bytes = _parse_quantity(quantity, "rate")
    measure = _settle_measure(text, in_bytes, measure)
    per_ns = tokens / PERIODS_NS[period]
    low, high = (MIN_BYTES, MAX_BYTES) if in_bytes else (MIN_PACKETS, MAX_PACKETS)
    if not low <= per_ns * SECOND_NS <= high:
        span = "32bit/h to 400gbit/s" if in_bytes else "1/h to 600M/s"
        raise InvalidInput(f"rate {text!r} is out of range", f"rates go from {span}", text)
    return Rate(per_ns.numerator, per_ns.denominator, measure)


def format_rate(rate: Rate) -> str:
    """Canonical text: parse_rate(format_rate(r), r.measure) == r."""
    in_bytes = rate.measure is not Measure.PACKETS
    per_second = rate.per_second * (8 if in_bytes else 1)
    choices = [("s", per_second), ("m", per_second * 60), ("h", per_second * 3600)]
    period, value = next((choice for choice in choices if choice[1].denominator == 1), choices[2])
    return f"{_format_scaled(value, BIT_UNITS) if in_bytes else _decimal(value)}/{period}"


def parse_burst(text: str, measure: Measure) -> int:
    """Tokens of a burst: packets for a packet rate, bytes otherwise."""
    tokens, in_bytes = _parse_quantity(text.strip(), "burst")
    if in_bytes and measure is Measure.PACKETS:
        raise InvalidInput(f"burst {text!r} is in bytes, the rate in packets", "write it as 2000", text)
    if not in_bytes and measure is not Measure.PACKETS:
        raise InvalidInput(f"burst {text!r} has no unit, the rate is in bytes", "write it as 64KB", text)
    if tokens.denominator != 1 or tokens < 1:
        unit = "bytes" if in_bytes else "packets"
        raise InvalidInput(f"burst {text!r} is not a whole number of {unit}", f"at least 1 of {unit}", text)
    return int(tokens)


def format_burst(tokens: int, measure: Measure) -> str:
    """Canonical text: parse_burst(format_burst(n, m), m) == n."""
    if measure is Measure.PACKETS:
        return str(tokens)
    units = {name: size for name, size in BYTE_UNITS.items() if name != "kB" and tokens % size == 0}
    name = max(units, key=lambda unit: units[unit])
    return f"{tokens // units[name]}{name}"


def parse_duration(text: str) -> int:
    """Nanoseconds of `60s`, `10m`, `1h30m`, `2d`, `1.5s`; more than zero, at most ten years."""
    parts = _DURATION_PART.findall(text) if len(text) <= MAX_TEXT else []
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        what = f"duration {text[:MAX_TEXT]!r} is not understood"
        raise InvalidInput(what, "write it as 60s, 10m or 1h30m", text[:MAX_TEXT])
    total = Fraction(0)
    for number, unit in parts:
        if unit not in DURATION_NS:
            raise InvalidInput(
                f"duration {text!r}: unknown unit {unit!r}", f"units are {', '.join(DURATION_NS)}", text
            )
        total += Fraction(number) * DURATION_NS[unit]
    if not 1 <= total <= MAX_DURATION_NS:
        raise InvalidInput(f"duration {text!r} is out of range", "more than zero, at most 3650d", text)
    return int(total)


def format_duration(ns: int, parts: int = 7) -> str:
    """`1h30m`; at most so many `parts`, the rest cut off. All of them, and it parses back to the same."""
    words = []
    rest = abs(ns)
    for unit, size in DURATION_NS.items():
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count}{unit}")
    return ("-" if ns < 0 else "") + ("".join(words[:parts]) or "0s")


def format_bytes(count: int) -> str:
    """For reading, not for parsing: `1.5MB`, three figures, decimal units."""
    return _short(count, ("B", "kB", "MB", "GB", "TB", "PB"))


def format_count(count: int) -> str:
    """For reading, not for parsing: `9999`, `12.3k`, `1.2M`."""
    return str(count) if abs(count) < 10000 else _short(count, ("", "k", "M", "G", "T", "P"))


def format_rate_per_second(per_second: float, measure: Measure) -> str:
    """A measured rate for reading: `12.3k/s`, `48.1 mbit/s`."""
    if measure is Measure.PACKETS:
        return f"{format_count(round(per_second))}/s"
    return _short(round(per_second * 8), (" bit/s", " kbit/s", " mbit/s", " gbit/s", " tbit/s"))


def _parse_quantity(text: str, what: str) -> tuple[Fraction, bool]:
    """(tokens, whether they are bytes) of `10`, `1.5k`, `50mbit`, `64KB`."""
    found = _QUANTITY.fullmatch(text) if len(text) <= MAX_TEXT else None
    if found is None:
        shown = text[:MAX_TEXT]
        raise InvalidInput(f"{what} {shown!r} is not a number with a unit", "as 1000 or 50mbit", shown)
    number, unit = Fraction(found[1]), found[2]
    if unit in PACKET_UNITS:
        return number * PACKET_UNITS[unit], False
    if unit in BYTE_UNITS:
        return number * BYTE_UNITS[unit], True
    if unit.lower() in BIT_UNITS:
        return number * BIT_UNITS[unit.lower()] / 8, True
    raise InvalidInput(f"{what} {text!r}: unknown unit {unit!r}", _unit_hint(unit), text)


def _unit_hint(unit: str) -> str:
    known = [*BIT_UNITS, *BYTE_UNITS]
    first = unit[:1].lower() if unit[:1].lower() in "kmg" else ""
    if unit.lower() in (first + "b", first + "bps"):
        return f"{first}bit counts bits, {first.upper()}B bytes"
    near = get_close_matches(unit, known, 1)
    return f"did you mean {near[0]}?" if near else f"units are k, M, G (packets), {', '.join(known)}"


_MEASURED = {
    True: ("bytes", "ip or frame", "one in packets is written 1000/s"),
    False: ("packets", "packets", "one in bytes is written 50mbit/s"),
}


def _settle_measure(text: str, in_bytes: bool, measure: Measure | None) -> Measure:
    if measure is None:
        return Measure.IP_BYTES if in_bytes else Measure.PACKETS
    if in_bytes != (measure is not Measure.PACKETS):
        unit, right, other = _MEASURED[in_bytes]
        raise InvalidInput(f"rate {text!r} counts {unit}", f"its measure is {right}; {other}", text)
    return measure


def _format_scaled(value: Fraction, units: dict[str, int]) -> str:
    """With the largest unit that leaves at least 1 and at most three decimals; else in the smallest."""
    for name, size in reversed(units.items()):
        scaled = value / size
        if scaled >= 1 and (scaled * 1000).denominator == 1:
            return _decimal(scaled) + name
    return _decimal(value) + next(iter(units))


def _decimal(value: Fraction) -> str:
    """Exact decimal digits of a fraction whose denominator has no prime factors but 2 and 5."""
    twos, fives = _multiplicity(value.denominator, 2), _multiplicity(value.denominator, 5)
    places = max(twos, fives)
    digits = str(int(value * 10**places)).rjust(places + 1, "0")
    return digits[: len(digits) - places] + ("." + digits[len(digits) - places :] if places else "")


def _multiplicity(number: int, prime: int) -> int:
    times = 0
    while number % prime == 0:
        number //= prime
        times += 1
    return times


def _short(count: int, units: tuple[str, ...]) -> str:
    size = abs(count)
    step = min(len(units) - 1, int(math.log10(size)) // 3) if size else 0
    if step + 1 < len(units) and round(size / 1000**step, 1) >= 1000:
        step += 1
    value = f"{count / 1000**step:.1f}" if step else str(count)
    return value.removesuffix(".0") + units[step]
