# SPDX-License-Identifier: Apache-2.0
"""Who is dropped most, of all limits together and of each, from sampled drop events.

Two heavy-hitter sketches (sketch.py): SIZE pairs of source and limit, and SIZE_A_LIMIT sources for each
limit. Counts halve every HALF_LIFE_S, so that the past fades. What a shadow limit would have dropped
is counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.dataplane.events import address
from valkyrie.control.enums import Reason
from valkyrie.control.service.sketch import Sketch, Words, odd_words

SIZE = 1024
SIZE_A_LIMIT = 256
GROUPS = 1024  # limits and reasons, each dropping or shadow; 256 limits and 21 reasons are 554
HALF_LIFE_S = 10.0
LEAST = 0.5
BY_REASON = 1 << 16  # above every slot

Group = tuple[str, bool]
"""The limit (or the reason, where none dropped), and whether it only would have dropped."""


class Talkers:
    """`seconds` tells a time that nobody sets. Counts are of events times the sampling.

    Use from the event loop's thread. Some ten MB at most, however many sources and limits there are.
    """

    def __init__(self, seconds: Callable[[], float], seed: int) -> None:
        self._seconds = seconds
        self._secret = odd_words(seed, 3)
        self._all = Sketch(SIZE, self._secret)
        self._limits: dict[int, Sketch] = {}
        self._numbers: dict[Group, int] = {}
        self._last = 0
        self._dropped = 0.0
        self._faded = seconds()

    def add(self, events: NDArray[Any], names: Mapping[int, str], weight: float) -> None:
        """Count abi.EVENT records of known reasons; `names` are those of limits by slot."""
        self._fade()
        self._dropped += int((events["shadow"] == 0).sum()) * weight
        slots = events["slot"].astype(np.uint64)
        by_reason = np.uint64(BY_REASON) + events["reason"]
        codes = np.where(slots == abi.NO_SLOT, by_reason, slots) * np.uint64(2) + (events["shadow"] != 0)
        there, which = np.unique(codes, return_inverse=True)
        if len(self._numbers) + len(there) > GROUPS:
            self._forget()
        numbers = [self._number(_group(int(code), names)) for code in there]
        keys = np.column_stack([events["src"], np.array(numbers, np.uint64)[which]])
        self._all.add(keys, weight)
        for place, number in enumerate(numbers):
            self._of(number).add(keys[which == place], weight)

    def _number(self, group: Group) -> int:
        """The number that stands for a group in keys; never used for another."""
        if group not in self._numbers:
            self._last += 1
            self._numbers[group] = self._last
        return self._numbers[group]

    def _of(self, number: int) -> Sketch:
        if number not in self._limits:
            self._limits[number] = Sketch(SIZE_A_LIMIT, self._secret)
        return self._limits[number]

    def _forget(self) -> None:
        """Limits that were renamed or deleted by the hundred: all begins anew."""
        self._numbers.clear()
        self._limits.clear()
        self._all = Sketch(SIZE, self._secret)

    def top(self, count: int, limit: str | None = None) -> list[dict[str, Any]]:
        """The largest, of all or of one limit, as {key, limit, dropped, would_drop, error}: of about the last
        HALF_LIFE_S seconds. What is told is at most `error` too low, and never too high.
        """
        self._fade()
        groups = {number: group for group, number in self._numbers.items()}
        sketches = [self._all]
        if limit is not None:
            chosen = [number for number, (name, _) in groups.items() if name == limit]
            sketches = [self._limits[number] for number in chosen if number in self._limits]
        rows = [
            _row(key, groups[int(key[2])], n, sketch.short)
            for sketch in sketches
            for key, n in sketch.largest(count)
        ]
        return sorted(rows, key=lambda row: -(row["dropped"] + row["would_drop"]))[:count]

    def dropped(self) -> float:
        """All drops that were counted, faded as the talkers' counts are: what a share is a share of."""
        self._fade()
        return self._dropped

    def _fade(self) -> None:
        halvings = int((self._seconds() - self._faded) / HALF_LIFE_S)
        if halvings <= 0:
            return
        self._faded += halvings * HALF_LIFE_S
        self._dropped *= 0.5 ** min(halvings, 64)
        for sketch in (self._all, *self._limits.values()):
            sketch.fade(0.5 ** min(halvings, 64), LEAST)
        self._limits = {number: sketch for number, sketch in self._limits.items() if len(sketch.keys)}
        held = {*self._limits, *self._all.keys[:, 2].tolist()}
        self._numbers = {group: number for group, number in self._numbers.items() if number in held}


def _group(code: int, names: Mapping[int, str]) -> Group:
    place, shadow = code >> 1, bool(code & 1)
    if place >= BY_REASON:
        return Reason(place - BY_REASON).name.lower(), shadow
    return names.get(place, Reason.LIMIT.name.lower()), shadow


def _row(key: Words, group: Group, count: float, short: float) -> dict[str, Any]:
    name, shadow = group
    told = max(1, round(count))
    return {
        "key": str(address(key[:2].tobytes())),
        "limit": name,
        "dropped": 0 if shadow else told,
        "would_drop": told if shadow else 0,
        "error": round(short),
    }
