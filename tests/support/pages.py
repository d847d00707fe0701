# SPDX-License-Identifier: Apache-2.0
"""The documents: their pages, and what is to be found in one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from support.ctl import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "vm").glob("*.md")])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
BETWEEN = {"&&", "||", ";", "|", ">"}  # what ends a command's words; what follows `>` is no command of ours


def read(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(text: str, *kinds: str) -> list[str]:
    """The contents of fenced blocks of these kinds."""
    return [body for _, kind, body in FENCE.findall(text) if kind in kinds]


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its two head lines."""
    part = f"\n{text}".split(f"\n{heading}\n", 1)[1]
    lines = part[part.index("|") :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cells: list[list[str]]) -> list[str]:
    """The words in backquotes in the first column."""
    return [word for row in cells for word in re.findall(r"`([^`]+)`", row[0])]


def _commands(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands among a line's words, also those inside `$(...)` and `vagrant ssh ... -c '...'`."""
    part: list[str] = []
    for word in [*words, ";"]:
        if word not in BETWEEN:
            for inner in re.findall(r"\$\(([^()]*)\)", word):
                yield from _commands(shlex.split(inner))
            part.append(word)
            continue
        while part and (part[0] == "sudo" or re.match(r"[A-Z_]+=", part[0])):
            part.pop(0)
        if part[:2] == ["vagrant", "ssh"] and "-c" in part:
            yield from _commands(shlex.split(part[part.index("-c") + 1]))
        elif part:
            yield part
        part = []


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command in a shell block, as (page, words), without `sudo` before it."""
    for page in PAGES:
        for block in blocks(page.read_text(), "sh", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                for words in _commands(shlex.split(line.strip().removeprefix("$ "), comments=True)):
                    yield str(page.relative_to(ROOT)), words
