# SPDX-License-Identifier: Apache-2.0
"""What the tables take, by the kernel's own account: `memlock` of each map's descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row, row
from support.bpf import loaded
from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, pins

BUCKETS = 1 << 20
WAYS = 8
PARTS = ("buckets", "bucket_keys")
BUCKET_BUDGET, TOTAL_BUDGET = "<= 40", "<= 128"


def run() -> Iterator[Row]:
    """At the default size of the table."""
    with loaded("bench", BUCKETS // WAYS, abi.MAX_NODES) as kernel:
        directory = kernel.dp.pin_dir
        taken = {name: pin_memlock(directory / name) for name in pins.pinned(directory) - {pins.PROGRAM}}
    yield row(
        "memory a bucket, key included", sum(taken[name] for name in PARTS) / BUCKETS, "bytes", BUCKET_BUDGET
    )
    yield row("memory of all maps", sum(taken.values()) / 1e6, "MB", TOTAL_BUDGET)
    for name in sorted(taken, key=lambda name: -taken[name])[:5]:
        yield row(f"memory of the map {name}", taken[name] / 1e6, "MB")


def memlock(fd: int) -> int:
    """Bytes of the kernel's memory that the map holds."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(dict(line.split(":", 1) for line in text.splitlines())["memlock"])


def pin_memlock(pin: Path) -> int:
    """The same of a pinned map."""
    with bpf.opened(pin) as fd:
        return memlock(fd)
