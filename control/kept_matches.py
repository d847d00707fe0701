# SPDX-License-Identifier: Apache-2.0
"""Parsed matches by their text, so that changing one limit of 256 does not parse the others again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from valkyrie.control.match import Match, parse_match

MOST = 4 * 1024 * 1024  # characters, of some 300,000 prefixes


class KeptMatches:
    """Those used last, of `most` characters together: a list of prefixes that is renewed again and again
    leaves nothing behind. For any thread.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, Match] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def __call__(self, text: str) -> Match:
        """As parse_match. The one asked for last is always kept."""
        with self._lock:
            found = self._kept.get(text)
            if found is not None:
                self._kept.move_to_end(text)
                return found
        found = parse_match(text)
        with self._lock:
            if text not in self._kept:
                self._characters += len(text)
            self._kept[text] = found
            while self._characters > self._most and len(self._kept) > 1:
                self._characters -= len(self._kept.popitem(last=False)[0])
        return found
