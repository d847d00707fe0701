# SPDX-License-Identifier: Apache-2.0
"""The map of values that applications keep (bpf/value.h): making it, and giving it another size.

A value lies under the BLAKE2b-256 of its key. Memory is allocated as values come; the map's size
bounds their number.
"""

import os
import sys
from pathlib import Path

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, pins

VALUES, LOCKS = "values", "value_locks"
KEY_BYTES = abi.VALUE_KEY.itemsize
ENTRY_BYTES = KEY_BYTES + abi.VALUE.itemsize + 64
"""What a value takes of the kernel's memory, its list node included."""
MOVED = (1).to_bytes(8, sys.byteorder)


def _fits(fd: int, count: int) -> bool:
    info = bpf.map_info(fd)
    return (info.value_size, info.max_entries) == (abi.VALUE.itemsize, count)


def room(pin_dir: Path) -> int:
    """For how many values there is room."""
    with bpf.opened(pin_dir / VALUES) as fd:
        return bpf.map_info(fd).max_entries


def make_room(pin_dir: Path, count: int) -> None:
    """See to it that the pinned map of values has room for `count`.

    One of another size is replaced, with what it holds as far as it fits: first it is marked, so that
    programs still open answer RETIRED instead of writing where nobody will look. They are gone for the
    second until the programs for the new map are built.
    """
    there = pins.pinned(pin_dir)
    if VALUES in there:
        with bpf.opened(pin_dir / VALUES) as old:
            if _fits(old, count):
                return
            _replace(pin_dir, old, count)
        return
    fd = _make(count)
    try:
        bpf.obj_pin(fd, pin_dir / VALUES)
    finally:
        os.close(fd)


def _make(count: int) -> int:
    return bpf.map_create(
        bpf.MAP_TYPE_HASH, KEY_BYTES, abi.VALUE.itemsize, entries=count, flags=bpf.F_NO_PREALLOC, name=VALUES
    )


def _replace(pin_dir: Path, old: int, count: int) -> None:
    if LOCKS in pins.pinned(pin_dir):
        with bpf.opened(pin_dir / LOCKS) as locks:
            bpf.map_update(locks, abi.VALUE_LOCKS.to_bytes(4, sys.byteorder), MOVED)
        bpf.membarrier()
        (pin_dir / LOCKS).unlink()
    info = bpf.map_info(old)
    fd = _make(count)
    try:
        if info.value_size == abi.VALUE.itemsize:
            for key in bpf.map_keys(old, KEY_BYTES, min(info.max_entries, count)):
                value = bpf.map_lookup(old, key, info.value_size)
                if value is not None:
                    bpf.map_update(fd, key, value)
        fresh = pin_dir / f"{VALUES}_new"
        fresh.unlink(missing_ok=True)
        bpf.obj_pin(fd, fresh)
        fresh.rename(pin_dir / VALUES)
    finally:
        os.close(fd)


def carry_over(old: Path, fresh: Path) -> None:
    """Pin the values of a table that is migrated from in the one that is migrated to."""
    for name in {VALUES, LOCKS} & pins.pinned(old):
        with bpf.opened(old / name) as fd:
            bpf.obj_pin(fd, fresh / name)
