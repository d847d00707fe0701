# SPDX-License-Identifier: Apache-2.0
"""The clock of a database file: one for all processes that use it, which the wall clock's steps do not move.

While the host is up it is CLOCK_BOOTTIME plus an offset that the first process to open the file wrote into
it. A boot with another id gets a new offset, of the wall clock: so the time that the host was down counts.
If the wall clock is then behind the time that was last seen, time goes on from there, so that no clock locks
anybody out for longer than a full bucket takes, and a second. If it is ahead, more time passes than did:
buckets are forgiven that much, and values expire sooner.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from valkyrie.adapters.errors import StoreUnavailable

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LATEST = 1 << 62  # ns since 1970: a bucket's TAT, two years past it at most, still fits 64 bits
SEEN_EVERY = 1_000_000_000  # ns between two notes of the time, for after a boot


def _boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The random name of this boot. Raises StoreUnavailable where the kernel does not show it."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        raise StoreUnavailable(f"cannot read {BOOT_ID}: {error.strerror}", "mount /proc") from error


@dataclass(frozen=True, slots=True)
class HostClock:
    """What the host knows of time; nanoseconds."""

    wall: Callable[[], int] = time.time_ns
    up: Callable[[], int] = _boottime
    boot: Callable[[], str] = boot_id


class FileClock:
    """Nanoseconds since 1970, near enough, by the file's own reckoning."""

    __slots__ = ("_offset", "_seen", "_up")

    def __init__(self, up: Callable[[], int], offset: int) -> None:
        self._up = up
        self._offset = offset
        self._seen = up() + offset

    @classmethod
    def of(cls, connection: sqlite3.Connection, host: HostClock) -> FileClock:
        """The file's clock; sets it if this is the first opening since the host started. In a transaction."""
        (boot, offset, seen) = connection.execute("SELECT boot, offset, seen FROM clock").fetchone()
        if boot != host.boot():
            offset = min(max(host.wall(), seen), LATEST) - host.up()
            connection.execute("UPDATE clock SET boot = ?, offset = ?", (host.boot(), offset))
        connection.execute("UPDATE clock SET seen = max(seen, ?)", (host.up() + offset,))
        return cls(host.up, offset)

    def now(self) -> int:
        return self._up() + self._offset

    def note(self, connection: sqlite3.Connection, now: int) -> None:
        """Write down the time now and then. In a transaction that writes."""
        if now - self._seen >= SEEN_EVERY:
            connection.execute("UPDATE clock SET seen = max(seen, ?)", (now,))
            self._seen = now
