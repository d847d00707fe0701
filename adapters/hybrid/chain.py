# SPDX-License-Identifier: Apache-2.0
"""Which store of a chain is in use: a state machine of what calls and probes found. Pure; time is passed in.

A failed call switches at once, since whoever waits for a second opinion waits for a second timeout. It goes
back to an earlier store only after that was well at every probe for the hold time. A store that fails soon
after it was used again doubles its own hold, up to MOST_GROWTH times, until it has lasted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

MOST_GROWTH = 32
LEAST_HOLD_S = 1.0  # from which a hold of 0 grows
LASTING = 10  # times the hold in use: then its failures are forgotten
SETTLED_S = 60.0  # at least as long in use, likewise

Kind = Literal["switch-over", "fail-back", "all-away"]


@dataclass(frozen=True, slots=True)
class Switch:
    """`source` and `target` are places in the chain; no target: every store is away, no source: it was so."""

    kind: Kind
    source: int | None
    target: int | None
    why: str


@dataclass(slots=True)
class Place:
    """One store. `well_since`: healthy at every probe since then; None: away, or never asked."""

    away: bool = False
    well_since: float | None = None
    growth: int = 1  # of the hold
    used_since: float | None = None  # None: not in use, or it was from the start
    why: str = ""


class Chain:
    def __init__(self, size: int, hold_s: float) -> None:
        self._places = [Place() for _ in range(size)]
        self._hold_s = hold_s
        self._in_use: int | None = 0

    @property
    def in_use(self) -> int | None:
        """None: every store is away."""
        return self._in_use

    def place(self, index: int) -> Place:
        return self._places[index]

    def hold(self, index: int) -> float:
        """Seconds that a store must be well before it is used again."""
        growth = self._places[index].growth
        return self._hold_s if growth == 1 else max(self._hold_s, LEAST_HOLD_S) * growth

    def choose(self, tried: Collection[int] = ()) -> int | None:
        """Whom to ask: the store in use, or if it was tried, another that may serve."""
        if self._in_use is None or self._in_use not in tried:
            return self._in_use
        return self._candidate(tried)

    def failed(self, index: int, began: float, now: float, why: str) -> Switch | None:
        """A call to the store, made at `began`, failed in a way that says that it does not serve."""
        place = self._places[index]
        if place.used_since is not None and began < place.used_since:
            return None  # news of the time before it went away and came back
        place.away, place.well_since, place.why = True, None, why
        if index != self._in_use:
            return None
        self._count_flap(place, now, self.hold(index))
        target = self._candidate((index,))
        self._use(target, now)
        return Switch("all-away" if target is None else "switch-over", index, target, why)

    def probed(self, index: int, now: float, *, ok: bool, why: str = "") -> Switch | None:
        """A probe of a store that is not in use found this."""
        place = self._places[index]
        if index == self._in_use:
            return None
        if not ok:
            place.away, place.well_since, place.why = True, None, why
            return None
        place.why = ""
        if place.well_since is None:
            place.well_since = now
        # A later store needs no hold: it is used only when all before it are away.
        if self._in_use is not None and index > self._in_use:
            place.away = False
        return None

    def due(self, now: float) -> Switch | None:
        """The switch that time asks for: back to the earliest store that was well for its hold, or to the
        earliest that is well at all when none is in use. It happens by `back`.
        """
        for index in range(len(self._places) if self._in_use is None else self._in_use):
            since = self._places[index].well_since
            if since is not None and (self._in_use is None or now - since >= self.hold(index)):
                return Switch("fail-back", self._in_use, index, f"well for {now - since:.1f} s")
        return None

    def back(self, switch: Switch, now: float) -> bool:
        """Make it so, if the chain is still as it was when `due` said it and the store still well."""
        target = switch.target
        if target is None or self._in_use != switch.source or self._places[target].well_since is None:
            return False
        self._use(target, now)
        return True

    def _use(self, target: int | None, now: float) -> None:
        if self._in_use is not None:
            self._places[self._in_use].used_since = None
        self._in_use = target
        if target is not None:
            place = self._places[target]
            place.away, place.used_since = False, now

    def _count_flap(self, place: Place, now: float, hold: float) -> None:
        lasted = place.used_since is None or now - place.used_since >= max(LASTING * hold, SETTLED_S)
        place.growth = 1 if lasted else min(place.growth * 2, MOST_GROWTH)

    def _candidate(self, tried: Collection[int]) -> int | None:
        """A later store that is not known to be away; else an earlier one that was well when last probed."""
        start = 0 if self._in_use is None else self._in_use + 1
        for index in range(start, len(self._places)):
            if index not in tried and not self._places[index].away:
                return index
        for index, place in enumerate(self._places):
            if index not in tried and place.well_since is not None:
                return index
        return None
