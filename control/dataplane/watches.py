# SPDX-License-Identifier: Apache-2.0
"""Arming captures and observations in the kernel (struct watch of bpf/abi.h), and their figures.

A packet that is under way while one is armed or let go may still meet half of each: it is then reported under
an id that nobody knows, or not at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi

FIGURES = ("seen", "sent", "lost", "limited")


class Watches:
    """`control` (1,), `watch` (1,) and `stats` (cpus, WATCHES) as the Dataplane maps them."""

    def __init__(self, control: NDArray[Any], watch: NDArray[Any], stats: NDArray[Any]) -> None:
        self._control = control
        self._captures = watch["capture"][0]
        self._observations = watch["observation"][0]
        self._stats = stats

    def clear(self) -> None:
        """Let go of all: those that armed them are gone."""
        self._control["capturing"] = 0
        self._captures["id"] = 0
        self._observations["id"] = 0

    def capture(self, place: int, row: NDArray[Any]) -> None:
        """Arm a capture: an abi.CAPTURE, its id not 0."""
        self._arm(self._captures, place, place, row)
        self._control["capturing"] = 1

    def end_capture(self, place: int) -> None:
        self._captures["id"][place] = 0
        self._control["capturing"] = int(self._captures["id"].any())

    def observe(self, place: int, row: NDArray[Any]) -> None:
        """Arm an observation: an abi.OBSERVATION, its id not 0."""
        self._arm(self._observations, place, abi.CAPTURES + place, row)

    def narrow(self, place: int, mask: int, thin: int) -> None:
        """Have fewer keys, or fewer packets of each, reported to an observation that is armed."""
        self._observations["mask"][place] = mask
        self._observations["thin"][place] = thin

    def end_observation(self, place: int) -> None:
        self._observations["id"][place] = 0

    def capture_figures(self, place: int) -> dict[str, int]:
        """What became of the packets that a capture wanted: seen, sent, lost, limited."""
        return self._figures(place)

    def observation_figures(self, place: int) -> dict[str, int]:
        return self._figures(abi.CAPTURES + place)

    def _arm(self, table: NDArray[Any], place: int, figures: int, row: NDArray[Any]) -> None:
        table["id"][place] = 0
        self._stats[:, figures] = np.zeros((), abi.WATCH_STATS)
        nameless = row.copy()
        nameless["id"] = 0
        table[place] = nameless
        table["id"][place] = row["id"]

    def _figures(self, place: int) -> dict[str, int]:
        return {name: int(self._stats[name][:, place].sum()) for name in FIGURES}
