# SPDX-License-Identifier: Apache-2.0
"""Did you mean: the known words closest to a wrong one."""

from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> list[str]:
    """At most three known words that resemble `word`, the best first."""
    from difflib import get_close_matches

    return get_close_matches(word, list(known), n=3, cutoff=0.6)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names what was probably meant, or nothing when no known word resembles it."""
    words = closest(word, known)
    return f"did you mean {' or '.join(words)}?" if words else ""
