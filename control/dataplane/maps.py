# SPDX-License-Identifier: Apache-2.0
"""The pinned maps as numpy arrays in this process's memory, and the switch to a new ruleset.

Reading and writing an array costs no system call: the maps are mapped (BPF_F_MMAPABLE).
"""

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, layout, pins
from valkyrie.control.dataplane.source import Sizes
from valkyrie.control.errors import Conflict, DataplaneError

Array = NDArray[Any]

# Without membarrier (nohz_full kernels): longer than any poll of a NIC's queue.
GRACE_SECONDS = 0.1
PARTS = ("limits", "plans", "nodes", "classes", "fields", "guards")


class Ruleset(Protocol):
    """A compiled ruleset: the header and arrays of what is used, in the layout of abi.h."""

    @property
    def header(self) -> Any: ...
    @property
    def limits(self) -> Array: ...
    @property
    def plans(self) -> Array: ...
    @property
    def nodes(self) -> Array: ...
    @property
    def classes(self) -> Array: ...
    @property
    def fields(self) -> Array: ...
    @property
    def guards(self) -> Array: ...


def _view(fd: int, dtype: np.dtype[Any], entries: int) -> Array:
    """The map's values; the array keeps the mapping alive and unmaps it when it goes."""
    stride = -(-dtype.itemsize // 8) * 8  # the kernel aligns array values to 8 bytes
    mapped = mmap.mmap(fd, stride * entries, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    return np.ndarray((entries,), dtype, buffer=mapped, strides=(stride,))


def pinned_sizes(pin_dir: Path) -> Sizes:
    """What sizes the pinned maps were built with. Raises NotFound if they are not pinned."""

    def entries(name: str) -> int:
        with bpf.opened(pin_dir / name) as fd:
            return bpf.map_info(fd).max_entries

    return Sizes(entries("buckets"), entries("nodes") // 2, entries("table_stats"))


class Dataplane:
    """The pinned maps and program of one appliance. Use as a context manager, or close() it.

    Shapes: control (1,), buckets (sets, WAYS), bucket_keys (sets,), leases (cpus * LEASES,), limit_stats
    (cpus, MAX_LIMITS), reason_stats (cpus, REASONS), table_stats (cpus,), explanations (MAX_LIMITS,),
    watch (1,), watch_stats (cpus, WATCHES).
    """

    def __init__(self, pin_dir: Path) -> None:
        """Open the pins. Raises NotFound if there are none, Conflict for another layout."""
        self.pin_dir = pin_dir
        self.sizes = pinned_sizes(pin_dir)
        layout.check(pin_dir, self.sizes)
        views: dict[str, Array] = {}
        self._tables = {table.name: table for table in layout.tables(self.sizes)}
        for table in self._tables.values():
            with bpf.opened(pin_dir / table.name) as fd:
                views[table.name] = _view(fd, table.dtype, table.entries)
        self._views = views
        self._fds: dict[str, int] = {}
        self._ordered = threading.Lock()
        self._held: list[dict[str, Array]] = [{}, {}]
        self._was_in_force = [True, True]  # before this process: unknown
        cpus = self.sizes.cpus
        self.control = views["control"]
        self.rulesets = views["rulesets"]
        self.limits = views["limits"].reshape(2, -1)
        self.buckets = views["buckets"]["bucket"]
        self.bucket_keys = views["bucket_keys"]
        self.leases = views["leases"]
        self.limit_stats = views["limit_stats"].reshape(cpus, -1)
        self.reason_stats = views["reason_stats"].reshape(cpus, -1)
        self.table_stats = views["table_stats"]
        self.explanations = views["explanations"]
        self.watch = views["watch"]
        self.watch_stats = views["watch_stats"].reshape(cpus, -1)

    def __enter__(self) -> "Dataplane":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close descriptors and drop the arrays; the maps live on by their pins."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._views.clear()
        for name in (
            "control", "rulesets", "limits", "buckets", "bucket_keys", "leases", "limit_stats",
            "reason_stats", "table_stats", "explanations", "watch", "watch_stats",
        ):  # fmt: skip
            self.__dict__.pop(name, None)

    def fd(self, name: str) -> int:
        """A descriptor of a pin (`police`, `events`, `nics`), kept open until close()."""
        if name not in self._fds:
            self._fds[name] = bpf.obj_get(self.pin_dir / name)
        return self._fds[name]

    def reopen_program(self) -> None:
        """Forget the old program's descriptor: a build has pinned a new one."""
        if pins.PROGRAM in self._fds:
            os.close(self._fds.pop(pins.PROGRAM))

    @property
    def active(self) -> int:
        """The generation that packets read, 0 or 1."""
        return int(self.control["active"][0]) & 1

    @property
    def serial(self) -> int:
        """The serial number of the ruleset in force; 0 before the first."""
        return int(self.rulesets["serial"][self.active])

    def generation(self, name: str, which: int) -> Array:
        """One generation's part of a table that has two."""
        half: Array = self._views[name].reshape(2, -1)[which]
        return half

    def publish(self, ruleset: Ruleset) -> None:
        """Put a ruleset in force: write it aside, then switch by one word.

        Raises DataplaneError if it does not fit the tables; then the old ruleset stays.
        """
        idle = 1 - self.active
        self._fits(ruleset, idle)
        if self._was_in_force[idle] and not bpf.membarrier():
            time.sleep(GRACE_SECONDS)
        self._was_in_force[idle] = False
        for name in PARTS:
            fresh: Array = getattr(ruleset, name)
            if self._held[idle].get(name) is not fresh:
                self._held[idle].pop(name, None)
                self.generation(name, idle)[: len(fresh)] = fresh
                self._held[idle][name] = fresh
        self.rulesets[idle] = ruleset.header
        # Releasing and taking a lock orders the stores above before the switch on every machine.
        with self._ordered:
            pass
        with self._ordered:
            self.control["active"][0] = idle
        self._was_in_force[1 - idle] = True

    def _fits(self, ruleset: Ruleset, idle: int) -> None:
        for name in PARTS:
            given, room = len(getattr(ruleset, name)), len(self.generation(name, idle))
            if given > room:
                raise DataplaneError(
                    f"the ruleset needs {given} {name}, the table has room for {room}",
                    "use fewer prefixes, or wider ones",
                )

    def set_nic(self, ifindex: int, slot: int) -> None:
        """Name a NIC by its slot, 1 to MAX_NICS - 1, for limits that match an interface."""
        if not 0 < slot < abi.MAX_NICS:
            raise DataplaneError(f"no NIC slot {slot}", f"at most {abi.MAX_NICS - 1} NICs can be attached")
        bpf.map_update(self.fd(layout.NICS), struct.pack("=I", ifindex), struct.pack("=I", slot))

    def forget_nic(self, ifindex: int) -> bool:
        """Forget a NIC; False if it was not known."""
        return bpf.map_delete(self.fd(layout.NICS), struct.pack("=I", ifindex))

    def nics(self) -> dict[int, int]:
        """Slots by ifindex."""
        fd = self.fd(layout.NICS)
        found: dict[int, int] = {}
        for key in bpf.map_keys(fd, 4, abi.MAX_NICS):
            value = bpf.map_lookup(fd, key, 4)
            if value is not None:
                found[struct.unpack("=I", key)[0]] = struct.unpack("=I", value)[0]
        return found


def initialise(dp: Dataplane, secret: tuple[int, int], magic: int) -> bool:
    """Give a new table its hash secret and test magic, before anything is attached.

    False if the table has its own already and keeps it. Raises Conflict for another ABI's table.
    """
    found = int(dp.control["abi"][0])
    if found == abi.ABI_VERSION:
        return False
    if found != 0:
        raise Conflict(
            f"the pinned table speaks ABI {found}, this is {abi.ABI_VERSION}",
            "a migration carries the buckets over: valkyried does it when it starts",
        )
    dp.control["secret"][0] = secret
    dp.control["test_magic"][0] = magic
    dp.control["abi"][0] = abi.ABI_VERSION
    return True
