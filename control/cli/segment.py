# SPDX-License-Identifier: Apache-2.0
"""Names as parts of a path of the API."""

from urllib.parse import quote

from valkyrie.control.errors import InvalidInput


def segment(word: str) -> str:
    """One word as one segment of a path. Raises InvalidInput for words that would not stay one."""
    if word in ("", ".", "..") or "/" in word:
        raise InvalidInput(f"{word!r} is no name", "it has at least one character, and no slash", word)
    return quote(word, safe="")
