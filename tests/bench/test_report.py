# SPDX-License-Identifier: Apache-2.0
"""Rows, tables and charts are as the page of performance and its readers need them."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.accuracy import RATES
from bench.chart import Axis, chart
from bench.report import OF_STORES, accuracy_chart, between, table
from bench.rows import read_json, row, write_json

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("value", "budget", "ok"),
    [
        (1.1, "<= 1.1", True),
        (1.2, "<= 1.1", False),
        (3.5, ">= 3.5", True),
        (3.4, ">= 3.5", False),
        (9, None, True),
    ],
)
def test_a_row_is_held_against_its_budget(value: float, budget: str | None, ok: bool) -> None:
    assert row("what", value, "x", budget).ok is ok


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    rows = [row("a", 1.25, "x", "<= 1.1"), row("b", 7, "ns")]
    write_json(tmp_path / "figures.json", rows)
    assert read_json(tmp_path / "figures.json") == rows


def test_a_table_says_what_is_missed() -> None:
    text = table([row("a", 1.25, "x", "<= 1.1"), row("b", 1, "x", "<= 1.1")])
    assert "| a | 1.25 x | ≤ 1.1 | **missed** |" in text
    assert "| b | 1 x | ≤ 1.1 | kept |" in text


def test_figures_without_a_budget_stand_among_the_others_without_a_verdict() -> None:
    text = table([row("a", 1, "x", "<= 1.1"), row("b", 1, "us")])
    assert "| b | 1 us |  |  |" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("try_consume, one at a time, redis, TCP, p99", True),
        ("primary of a valkey cluster hung, 50 callers: calls that fail / in flight", True),
        ("kernel try_consume, batches of 256", True),
        ("bare test run of the same program, p50", True),
        ("police / bare XDP_DROP, 1,000 sources", False),
        ("ns a packet, one limit", False),
    ],
)
def test_figures_of_stores_are_told_from_those_of_packets(name: str, expected: bool) -> None:
    assert bool(OF_STORES.search(name)) is expected


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    assert between("head <b>old<e> tail", "<b>", "<e>", "new") == "head <b>\nnew\n<e> tail"


def test_a_chart_has_a_line_and_its_marks_for_each_series() -> None:
    x, y = Axis("x < y", (1, 10, 100)), Axis("y", (0, 50, 100))
    root = ET.fromstring(chart("A & B", x, y, {"one": [(1, 0), (10, 50), (100, 100)], "two": [(1, 100)]}))
    marks = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter(f"{SVG}circle")]
    assert len(marks) == 4
    (left, bottom), (middle, centre), (right, top), (first, high) = marks
    assert (middle, centre) == pytest.approx(((left + right) / 2, (bottom + top) / 2), abs=0.1)
    assert (first, high) == (left, top)


def test_the_accuracy_chart_draws_each_rate_of_each_key() -> None:
    values = {
        f"admitted / allowed, {rate:,}/s, {key}, one CPU": 0.995
        for rate in RATES
        for key in ("global", "src")
    }
    root = ET.fromstring(accuracy_chart(values))
    assert len(list(root.iter(f"{SVG}circle"))) == 2 * len(RATES)
