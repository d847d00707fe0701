# SPDX-License-Identifier: Apache-2.0
"""The text that is compiled, its compile flags, and its digest.

BCC rewrites map calls in the main file alone, so the program's own `#include "x.h"` lines are
expanded here into one text. #line markers keep the file and line of every error.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from valkyrie.control.errors import DataplaneError

FOLDER = Path(__file__).resolve().parent.parent.parent / "bpf"
MAIN = FOLDER / "valkyrie.bpf.c"
CALL_MAIN = FOLDER / "call.bpf.c"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[ \t]*(?:(?://|/\*).*)?$')
CPUS = Path("/sys/devices/system/cpu/possible")


@dataclass(frozen=True)
class Face:
    """What is built from one main file: the functions that are pinned as programs, and which function
    their tail calls go on with, by a place in which map of programs.
    """

    programs: tuple[str, ...]
    continued: str
    continuation: str
    watchers: tuple[str, ...] = ()
    """Functions that packets go on with while somebody looks: the nth has the place CONTINUATIONS * n +
    CONTINUE_AT in the map `watchers`.
    """


POLICE = Face(("police",), "police_more", "continuation", ("police_observe", "police_capture"))
CALL = Face(("call", "value"), "call", "call_continuation")


@dataclass(frozen=True)
class Sizes:
    """What a build may choose: bucket sets (a power of two, eight buckets each), tree nodes a
    generation, and possible CPUs.
    """

    sets: int
    nodes: int
    cpus: int

    def flags(self) -> list[str]:
        """The -D options that say so."""
        return [f"-DBUCKET_SETS={self.sets}", f"-DMAX_NODES={self.nodes}", f"-DMAX_CPUS={self.cpus}"]


def possible_cpus(text: str | None = None) -> int:
    """How many CPUs the host may ever have: one more than the highest of "0-3,8-11".

    Per-CPU areas are indexed by CPU number, so holes count.
    """
    return 1 + max(cpu_numbers(CPUS.read_text() if text is None else text))


def cpu_numbers(text: str) -> tuple[int, ...]:
    """Those that "0-3,8-11" says."""
    spans = [part.split("-") for part in text.strip().split(",")]
    return tuple(cpu for span in spans for cpu in range(int(span[0]), int(span[-1]) + 1))


def expand(path: Path, seen: set[Path] | None = None) -> str:
    """The file with its own includes in their place, each file once.

    Raises DataplaneError naming the line that includes a file that is not there.
    """
    seen = set() if seen is None else seen
    seen.add(path.resolve())
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            lines.append(line)
            if line.endswith("{"):  # BCC adds lines of its own before and after these
                lines.append(f'#line {number + 1} "{path.name}"')
            continue
        included = path.parent / found[1]
        if not included.exists():
            raise DataplaneError(
                f'{path.name} line {number}: no file "{found[1]}"',
                "the installation is incomplete: install it again",
            )
        if included.resolve() not in seen:
            lines.append(expand(included, seen).rstrip("\n"))
        lines.append(f'#line {number + 1} "{path.name}"')
    return "\n".join(lines) + "\n"


def digest(text: str, sizes: Sizes) -> str:
    """Names a build: equal digests mean an equal program."""
    return hashlib.sha256("\0".join([text, *sizes.flags()]).encode()).hexdigest()
