# SPDX-License-Identifier: Apache-2.0
"""What was sent and what became of it, number by number: answered, lost, twice, out of order, how long."""

from dataclasses import dataclass, field
from typing import Any

NUMBERS_TOLD = 50  # spans of lost numbers in a report


@dataclass
class Tally:
    """Of one kind. Times are ns."""

    sent: int = 0
    frames: int = 0
    bytes: int = 0
    asked: int = 0
    answered: int = 0
    refused: int = 0
    duplicated: int = 0
    reordered: int = 0
    newest: int = -1
    lost: list[int] = field(default_factory=list)
    trips: list[int] = field(default_factory=list)


class Ledger:
    """The book of one run. It holds every number that was sent: bound the run's count."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, int, bool]] = {}
        self._done: dict[int, str] = {}
        self._tallies: dict[str, Tally] = {}
        self._waiting = 0

    def sent(self, seq: int, kind: str, at: int, frames: tuple[bytes, ...], *, asks: bool) -> None:
        """A packet was sent at a time in ns."""
        tally = self._tallies.setdefault(kind, Tally())
        tally.sent += 1
        tally.frames += len(frames)
        tally.bytes += sum(map(len, frames))
        tally.asked += asks
        self._waiting += asks
        self._open[seq] = (kind, at, asks)

    def answered(
        self, seq: int, at: int, *, refused: bool = False, kinds: frozenset[str] | None = None
    ) -> None:
        """An answer came; of a number that nobody sent, or of none of these kinds, it is not counted."""
        kind = self._done.get(seq) or self._open.get(seq, ("", 0, False))[0]
        if not kind or (kinds is not None and kind not in kinds):
            return
        tally = self._tallies[kind]
        if seq in self._done:
            tally.duplicated += 1
            return
        _, began, asks = self._open.pop(seq)
        self._done[seq] = kind
        self._waiting -= asks
        tally.refused += refused
        tally.answered += not refused
        tally.reordered += seq < tally.newest
        tally.newest = max(tally.newest, seq)
        tally.trips.append(max(0, at - began))

    @property
    def waiting(self) -> int:
        """How many packets that ask have no answer yet."""
        return self._waiting

    def report(self) -> dict[str, dict[str, Any]]:
        """By kind, for JSON. What nobody was asked to answer has no `lost`."""
        lost: dict[str, list[int]] = {kind: [] for kind in self._tallies}
        for seq, (kind, _, asks) in self._open.items():
            if asks:
                lost[kind].append(seq)
        return {kind: _told(tally, sorted(lost[kind])) for kind, tally in sorted(self._tallies.items())}


def total(kinds: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The sums over the kinds of a report."""
    names = ("sent", "frames", "bytes", "asked", "answered", "refused", "lost", "duplicated", "reordered")
    return {name: sum(kind[name] or 0 for kind in kinds.values()) for name in names}


def _told(tally: Tally, lost: list[int]) -> dict[str, Any]:
    return {
        "sent": tally.sent,
        "frames": tally.frames,
        "bytes": tally.bytes,
        "asked": tally.asked,
        "answered": tally.answered,
        "refused": tally.refused,
        "lost": len(lost) if tally.asked else None,
        "lost_numbers": spans(lost)[:NUMBERS_TOLD],
        "duplicated": tally.duplicated,
        "reordered": tally.reordered,
        "round_trip_ms": _times(sorted(tally.trips)),
    }


def _times(trips: list[int]) -> dict[str, float] | None:
    if not trips:
        return None
    last = len(trips) - 1
    picked = {"least": 0, "median": last // 2, "p99": last * 99 // 100, "most": last}
    return {name: round(trips[at] / 1e6, 3) for name, at in picked.items()}


def spans(numbers: list[int]) -> list[str]:
    """Sorted numbers as "3" and "7-9"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]
