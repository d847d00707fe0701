# SPDX-License-Identifier: Apache-2.0
"""The scripts that run inside the server, from adapters/lua."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """`sha` is what the server calls it."""

    name: str
    text: str
    sha: str


def load(name: str, *before: str, flags: str = "") -> Script:
    """A script with what must stand before it. The first line has the server check before it runs anything
    whether writes can be had (memory, replica), so that no script stops half-way.
    """
    folder = files("valkyrie.adapters") / "lua"
    parts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*before, name)]
    text = "\n".join([f"#!lua flags={flags}" if flags else "#!lua", *parts])
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


TAKE = load("take", "bucket")
INCREMENT = load("increment")
RAISE = load("raise", "bucket", "owner")
DROP = load("drop", "owner")
LEVELS = load("levels", flags="no-writes")
CLAIM = load("claim")
RENEW = load("renew", "owner")
RELEASE = load("release")
OWNERS = load("owners", flags="no-writes")
PUT_DOCUMENT = load("putdoc", "owner")
GET_DOCUMENT = load("getdoc", flags="no-writes")
