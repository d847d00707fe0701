# SPDX-License-Identifier: Apache-2.0
"""What this process takes, and what its NICs received, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc/self")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """CPU time since the process began; `memory` is resident, the mapped BPF tables included."""

    user_s: float
    system_s: float
    memory: int
    threads: int
    fds: int
    uptime_s: float


@dataclass(frozen=True, slots=True)
class Received:
    """What a NIC's driver counted, of the packets that it handed to the host."""

    packets: int
    bytes: int
    dropped: int


def process_figures(proc: Path = PROC) -> ProcessFigures:
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    # Numbered as in proc(5) less the three before the name's end: utime is its field 14.
    user, system, threads, began, pages = (int(fields[at]) for at in (11, 12, 17, 19, 21))
    up = float((proc.parent / "uptime").read_text().split()[0])
    fds = len(os.listdir(proc / "fd")) - 1  # less the one that lists  # noqa: PTH208 - a count, no paths
    return ProcessFigures(
        user / TICKS, system / TICKS, pages * PAGE, threads, fds, max(0.0, up - began / TICKS)
    )


def received(proc: Path = PROC) -> Mapping[str, Received]:
    """By NIC, of the network namespace that the process is in."""
    found = {}
    # A name may be of any bytes, those that steer a terminal or end a line for Python among them.
    for line in (proc / "net" / "dev").read_text(errors="replace").split("\n")[2:-1]:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()[:4]]
        found[name.strip()] = Received(numbers[1], numbers[0], numbers[3])
    return found
