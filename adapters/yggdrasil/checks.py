# SPDX-License-Identifier: Apache-2.0
"""What the settings ask for and this host's kernel cannot do is refused, with the reason."""

from __future__ import annotations

import os
from pathlib import Path

from valkyrie.adapters.errors import StoreConfigurationError
from valkyrie.adapters.settings import YggdrasilSettings
from valkyrie.control.dataplane import bpf, values

NODES = Path("/sys/devices/system/node/online")
LOCAL = ("local", "localhost")
MIB = 1 << 20


def numa_nodes(text: str | None = None) -> int:
    """How many memory nodes the host has, of "0" or "0-1,3"; 1 where the kernel does not tell."""
    try:
        given = NODES.read_text() if text is None else text
    except OSError:
        return 1
    ends = [part.split("-") for part in given.strip().split(",") if part]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends) or 1


def check(settings: YggdrasilSettings, nodes: int) -> None:
    """Raises StoreConfigurationError naming the setting. `nodes`: memory nodes of the host."""
    if settings.bind_address not in LOCAL:
        raise StoreConfigurationError(
            f"yggdrasil.bind_address {settings.bind_address}: the kernel's table has no address, processes of"
            " this host reach it by system calls",
            "leave it out, or use redis or valkey for other machines",
        )
    if settings.hash_replicas != 1:
        raise StoreConfigurationError(
            f"yggdrasil.hash_replicas {settings.hash_replicas}: the kernel's table is on this host alone",
            "leave it 1; what is to be on other machines is synced to redis or valkey",
        )
    if settings.numa_aware and nodes > 1:
        raise StoreConfigurationError(
            f"yggdrasil.numa_aware: one table serves all {nodes} memory nodes of this host",
            "leave it false",
        )


def check_memory(settings: YggdrasilSettings, pin_dir: Path) -> int:
    """What the pinned maps take at most, in bytes. Raises StoreConfigurationError if that is more than
    max_memory_mb.
    """
    taken = memory(pin_dir)
    if taken > settings.max_memory_mb * MIB:
        raise StoreConfigurationError(
            f"the kernel's tables take up to {-(-taken // MIB)} MiB,"
            f" yggdrasil.max_memory_mb allows {settings.max_memory_mb}",
            "raise it, or lower table.buckets or yggdrasil.max_values",
        )
    return taken


def memory(pin_dir: Path) -> int:
    """Bytes of all pinned maps by the kernel's account; values count as if all were there."""
    total = values.room(pin_dir) * values.ENTRY_BYTES
    for pin in pin_dir.iterdir():
        if pin.name == values.VALUES:
            continue
        with bpf.opened(pin) as fd:
            total += _locked(fd)
    return total


def _locked(fd: int) -> int:
    for line in Path(f"/proc/{os.getpid()}/fdinfo/{fd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "memlock":
            return int(value)
    return 0
