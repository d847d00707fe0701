# SPDX-License-Identifier: Apache-2.0
"""Matches are parsed once, and what is kept of them is bounded."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest

from valkyrie.control import kept_matches
from valkyrie.control.kept_matches import KeptMatches
from valkyrie.control.limits import Limit
from valkyrie.control.match import Match, parse_match

COUNT = 500


def listed(number: int) -> str:
    return "src " + ",".join(f"10.{number}.{n // 256}.{n % 256}/32" for n in range(COUNT))


def alive() -> list[Match]:
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, Match) and len(found.src) == COUNT]


def test_a_long_list_that_is_renewed_again_and_again_leaves_nothing_behind() -> None:
    kept = KeptMatches(3 * len(listed(100)))
    last = parse_match("")
    for number in range(100, 150):
        last = kept(listed(number))
    found = alive()
    assert any(one is last for one in found)
    assert len(found) <= 3


def test_what_is_asked_for_again_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def parse(text: str) -> Match:
        parsed.append(text)
        return parse_match(text)

    monkeypatch.setattr(kept_matches, "parse_match", parse)
    kept = KeptMatches(10)
    texts = ["ip 4", "ip 6"]
    for text in (*texts, *texts, "proto tcp", "ip 6"):
        assert kept(text) == parse_match(text)
    assert parsed == ["ip 4", "ip 6", "proto tcp", "ip 6"]


def test_one_that_is_longer_than_all_that_may_be_kept_is_kept_alone() -> None:
    kept = KeptMatches(10)
    kept("ip 4")
    assert kept(listed(1)) is kept(listed(1))


def test_threads_that_ask_at_once_leave_the_bound_as_it_is() -> None:
    kept = KeptMatches(40)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(kept, [f"dport {n % 50}" for n in range(5000)]))
    assert kept._characters == sum(map(len, kept._kept)) <= 40


def test_a_limit_holds_its_own_match_whatever_is_kept() -> None:
    limit = Limit(name="x", match="dport 80", rate="1/s")
    assert limit.matcher is limit.matcher
    assert "matcher" in vars(limit)
