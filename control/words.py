# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of matches, and lists of numbers and ranges written as `1-1023,8080`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from valkyrie.control.errors import InvalidInput

Ranges = tuple[tuple[int, int], ...]  # inclusive, ascending, neither overlapping nor touching

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132}
TCP, ICMP, ICMP6 = PROTOCOLS["tcp"], PROTOCOLS["icmp"], PROTOCOLS["icmp6"]
WITH_PORTS = frozenset((PROTOCOLS["tcp"], PROTOCOLS["udp"], PROTOCOLS["sctp"]))

DSCP = {
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{n}{drop}": 8 * n + 2 * drop for n in range(1, 5) for drop in range(1, 4)},
    "le": 1,
    "va": 44,
    "ef": 46,
}
TCP_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
ICMP4_TYPES = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
    "address-mask-request": 17,
    "address-mask-reply": 18,
}
ICMP6_TYPES = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-query": 130,
    "mld-report": 131,
    "mld-done": 132,
    "router-solicitation": 133,
    "router-advertisement": 134,
    "neighbour-solicitation": 135,
    "neighbour-advertisement": 136,
    "redirect": 137,
    "mld2-report": 143,
}
FRAGMENTS = ("skip", "match", "only", "never")


def suggest(word: str, known: Iterable[str], what: str) -> str:
    """What to write instead of the wrong `word`."""
    names = list(known)
    near = get_close_matches(word.lower(), names, 1)
    return f"did you mean {near[0]}?" if near else f"{what}: {', '.join(names)}"


def items(field: str, text: str) -> list[str]:
    """The entries of a comma-separated list; raises InvalidInput for an empty one."""
    entries = text.split(",")
    if "" in entries:
        raise InvalidInput(
            f"{field} {text[:64]!r} has an empty entry", "a list is written without spaces: 80,443", text[:64]
        )
    return entries


def number(field: str, word: str, low: int, high: int, names: Mapping[str, int] | None = None) -> int:
    """A name or a number from `low` to `high`."""
    if names and word.lower() in names:
        return names[word.lower()]
    if not (word.isascii() and word.isdigit()):
        span = f"a number from {low} to {high}"
        hint = suggest(word, names, f"{span} or") if names else span
        raise InvalidInput(f"{field}: {word[:64]!r} is unknown", hint, word[:64])
    if len(word) > 10 or not low <= int(word) <= high:
        hint = f"it goes from {low} to {high}"
        raise InvalidInput(f"{field}: {word[:64]} is out of range", hint, word[:64])
    return int(word)


def ranges(
    field: str, entries: Iterable[str], low: int, high: int, names: Mapping[str, int] | None = None
) -> Ranges:
    """Numbers, names and ranges `LOW-HIGH`, merged."""
    found = []
    for word in entries:
        first, dash, last = word.partition("-")
        if not dash or (names and word.lower() in names):
            start = end = number(field, word, low, high, names)
        elif not (first and last):
            raise InvalidInput(
                f"{field}: range {word[:64]!r} lacks an end",
                f"write {first or low}-{last or high}",
                word[:64],
            )
        else:
            start, end = (number(field, part, low, high, names) for part in (first, last))
        if start > end:
            raise InvalidInput(f"{field}: range {word} runs backwards", f"write {last}-{first}", word)
        found.append((start, end))
    return merge(found)


def merge(found: Iterable[tuple[int, int]]) -> Ranges:
    """Inclusive ranges in any order, made ascending, with those that overlap or touch joined."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def format_ranges(spans: Ranges, names: Mapping[str, int] | None = None) -> str:
    """Canonical text; single values by their name where they have one."""
    name_of = {value: name for name, value in (names or {}).items()}
    return ",".join(
        name_of.get(start, str(start)) if start == end else f"{start}-{end}" for start, end in spans
    )
