# SPDX-License-Identifier: Apache-2.0
"""Units are exact, round-trip, and refuse what they cannot mean by naming it."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyrie.control.enums import Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.units import (
    format_burst,
    format_bytes,
    format_count,
    format_duration,
    format_rate,
    format_rate_per_second,
    parse_burst,
    parse_duration,
    parse_rate,
)


@pytest.mark.parametrize(
    ("text", "per_second", "measure"),
    [
        ("1000/s", 1000, Measure.PACKETS),
        ("1M/s", 1_000_000, Measure.PACKETS),
        ("10/h", Fraction(10, 3600), Measure.PACKETS),
        ("90/min", Fraction(3, 2), Measure.PACKETS),
        ("50mbit/s", 6_250_000, Measure.IP_BYTES),
        ("2.5MB/s", 2_500_000, Measure.IP_BYTES),
        ("64KiB/s", 65536, Measure.IP_BYTES),
        ("400gbit/s", 50 * 10**9, Measure.IP_BYTES),
        ("1/h", Fraction(1, 3600), Measure.PACKETS),
    ],
)
def test_a_rate_is_exact(text: str, per_second: Fraction, measure: Measure) -> None:
    rate = parse_rate(text)
    assert (rate.per_second, rate.measure) == (per_second, measure)
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("60/m", "1/s"),
        ("0.5/s", "30/m"),
        ("1500kbit/s", "1.5mbit/s"),
        ("2.5MB/s", "20mbit/s"),
        ("1000000/s", "1000000/s"),
        ("1bit/s", "1bit/s"),
    ],
)
def test_a_rate_has_one_canonical_text(text: str, canonical: str) -> None:
    assert format_rate(parse_rate(text)) == canonical


@given(
    number=st.decimals(min_value=1, max_value=49999, places=3),
    unit=st.sampled_from(["", "k", "KiB", "kbit", "mbit", "MB"]),
    period=st.sampled_from(["s", "m", "h"]),
)
def test_every_rate_survives_the_round_trip(number: object, unit: str, period: str) -> None:
    rate = parse_rate(f"{number}{unit}/{period}")
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("1000", "no period", "1000/s"),
        ("1000/day", "'day'", "s, m"),
        ("50mb/s", "'mb'", "mbit counts bits, MB bytes"),
        ("50Mbps/s", "'Mbps'", "mbit"),
        ("50mbits/s", "'mbits'", "mbit"),
        ("-5/s", "not a number", "1000"),
        ("1e9/s", "unknown unit 'e9'|not a number", ""),
        ("0/s", "out of range", "1/h"),
        ("0.5/h", "out of range", "1/h"),
        ("401gbit/s", "out of range", "400gbit/s"),
        ("9" * 500 + "/s", "not a number", ""),
    ],
)
def test_a_wrong_rate_is_named_with_what_would_be_right(text: str, says: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        parse_rate(text)
    assert hint in caught.value.hint
    assert caught.value.where in text


def test_the_measure_must_fit_the_unit() -> None:
    assert parse_rate("1mbit/s", Measure.FRAME_BYTES).measure is Measure.FRAME_BYTES
    with pytest.raises(InvalidInput, match="counts packets"):
        parse_rate("10/s", Measure.IP_BYTES)
    with pytest.raises(InvalidInput, match="counts bytes"):
        parse_rate("10MB/s", Measure.PACKETS)


def test_bursts_are_in_the_unit_of_the_rate() -> None:
    assert parse_burst("2000", Measure.PACKETS) == 2000
    assert parse_burst("64KB", Measure.IP_BYTES) == 64000
    assert parse_burst("8kbit", Measure.IP_BYTES) == 1000
    for text, measure in (("2000", Measure.IP_BYTES), ("64KB", Measure.PACKETS), ("0", Measure.PACKETS)):
        with pytest.raises(InvalidInput, match="burst"):
            parse_burst(text, measure)


@given(st.integers(1, 10**15), st.sampled_from(Measure))
def test_bursts_survive_the_round_trip(tokens: int, measure: Measure) -> None:
    assert parse_burst(format_burst(tokens, measure), measure) == tokens


@given(st.integers(1, 3650 * 86400 * 10**9))
def test_durations_survive_the_round_trip(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


def test_durations_are_read_and_shortened() -> None:
    assert parse_duration("1h30m") == 5400 * 10**9
    assert parse_duration("1.5s") == 1_500_000_000
    assert format_duration(3_661_000_000_001, 2) == "1h1m"
    assert format_duration(0) == "0s"
    for text in ("", "10", "s", "10 minutes", "10y", "0s", "4000d", "-5s"):
        with pytest.raises(InvalidInput, match="duration"):
            parse_duration(text)


def test_figures_for_reading_are_short() -> None:
    assert [format_count(n) for n in (0, 9999, 12345, 999_999, 1_000_000, 2_345_678_901)] == [
        "0", "9999", "12.3k", "1M", "1M", "2.3G",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (0, 999, 1500, 64 * 10**6)] == ["0B", "999B", "1.5kB", "64MB"]
    assert format_rate_per_second(6_250_000, Measure.IP_BYTES) == "50 mbit/s"
    assert format_rate_per_second(12_345, Measure.PACKETS) == "12.3k/s"
