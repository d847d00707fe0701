# SPDX-License-Identifier: Apache-2.0
"""The loaded program under test: built once into a pin directory of its own, fed frame by frame.

Nothing is attached to any NIC. Time is what the test says, through struct test_control.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valkyrie.control import abi
from valkyrie.control.abi import Reason
from valkyrie.control.dataplane import bpf, pins
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.dataplane.source import Sizes, possible_cpus

BPFFS = Path("/sys/fs/bpf")
XDP_ABORTED, XDP_DROP, XDP_PASS = 0, 1, 2
SECRET = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
TEST_MAGIC = 0x5A1C0DE5A1C0DE55
META = struct.Struct("=QQIHH")
LONGEST_FRAME = 3000
"""More does not fit the page of a test run, beside headroom and metadata."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the program said of a frame: the XDP action, the reason, and the limit that dropped it."""

    action: int
    reason: Reason
    slot: int


class Runner:
    """BPF_PROG_TEST_RUN with every buffer made once: some microseconds a frame."""

    def __init__(self, prog_fd: int) -> None:
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._number = bpf.SYSCALL[os.uname().machine]
        self._frame = (ctypes.c_char * 4096)()
        self._out = (ctypes.c_char * 4096)()
        self._context = (ctypes.c_char * 24)()
        self._attributes = (ctypes.c_char * 80)()
        where = [ctypes.addressof(b) for b in (self._frame, self._out, self._context)]
        values = (prog_fd, 0, 0, 0, where[0], where[1], 1, 0, 24, 0, where[2], 0, 0, 0, 0)
        struct.pack_into("=IIIIQQIIIIQQIII", self._attributes, 0, *values)

    def run(self, frame: bytes, now_ns: int, *, ifindex: int = 0, flags: int = 0) -> tuple[int, int, int]:
        """XDP action, reason, slot. `now_ns` 0: the clock's. Raises OSError as the kernel does."""
        size = META.size + len(frame)
        META.pack_into(self._frame, 0, TEST_MAGIC, now_ns, flags, 0, 0)
        ctypes.memmove(ctypes.addressof(self._frame) + META.size, frame, len(frame))
        struct.pack_into("=6I", self._context, 0, META.size, size, 0, ifindex, 0, 0)
        struct.pack_into("=III", self._attributes, 4, 0, size, 4096)
        if self._syscall(self._number, bpf.PROG_TEST_RUN, self._attributes, 80) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{errno.errorcode[number]} for a frame of {len(frame)} bytes", frame.hex())
        (action,) = struct.unpack_from("=I", self._attributes, 4)
        _, _, _, reason, slot = META.unpack_from(self._out, 0)
        return action, reason, slot


class Kernel:
    """The pinned program: its tables (`dp`) and a way to feed it frames."""

    def __init__(self, pin_dir: Path) -> None:
        self.dp = Dataplane(pin_dir)
        self.runner = Runner(self.dp.fd(pins.PROGRAM))
        self.reset()

    def reset(self) -> None:
        """As if just built: no rules, no buckets, no counts, no NICs; the secrets are the tests' own."""
        dp = self.dp
        for table in (dp.buckets, dp.bucket_keys, dp.leases, dp.rulesets):
            table[:] = 0
        self.forget_counts()
        dp.control["abi"], dp.control["active"] = abi.ABI_VERSION, 0
        dp.control["secret"], dp.control["test_magic"] = SECRET, TEST_MAGIC
        for ifindex in dp.nics():
            dp.forget_nic(ifindex)

    def forget_counts(self) -> None:
        """All counters 0."""
        for table in (self.dp.limit_stats, self.dp.reason_stats, self.dp.table_stats):
            table[:] = 0

    def run(self, frame: bytes, now_ns: int, *, ifindex: int = 0, flags: int = 0) -> Answer:
        """One frame that arrives at `now_ns` since boot at the interface."""
        action, reason, slot = self.runner.run(frame, now_ns, ifindex=ifindex, flags=flags)
        return Answer(action, Reason(reason), slot)

    def reasons(self) -> dict[Reason, int]:
        """Packets by reason, over all CPUs; those that occurred."""
        packets = self.dp.reason_stats["packets"].sum(axis=0)
        return {Reason(i): int(n) for i, n in enumerate(packets) if n}

    def limit_counters(self, slot: int) -> dict[str, int]:
        """struct limit_stats of a slot, over all CPUs."""
        rows = self.dp.limit_stats[:, slot]
        return {name: int(rows[name].sum()) for name in rows.dtype.names or () if name != "reserved"}

    def table_counter(self, name: str) -> int:
        """A field of struct table_stats, over all CPUs."""
        return int(self.dp.table_stats[name].sum())

    def buckets(self) -> dict[int, int]:
        """Fingerprint to TAT of all buckets in the table."""
        table = self.dp.buckets
        used = table["fingerprint"] != 0
        fingerprints, tats = table["fingerprint"][used].tolist(), table["tat"][used].tolist()
        return dict(zip(fingerprints, tats, strict=True))

    def close(self) -> None:
        """Close the descriptors; the pins stay."""
        self.dp.close()


def build(pin_dir: Path, sizes: Sizes) -> dict[str, Any]:
    """Compile and load in the loader's own process. Fails the test with the loader's words."""
    command = [sys.executable, "-m", "valkyrie.control.dataplane.loader", "--pin-dir", str(pin_dir)]
    command += ["--sets", str(sizes.sets), "--nodes", str(sizes.nodes), "--cpus", str(sizes.cpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _sweep(name: str) -> None:
    """Remove the pins of test processes that were killed."""
    for left in BPFFS.glob(f"valkyrie-{name}-*"):
        if not Path(f"/proc/{left.name.rpartition('-')[2]}").exists():
            pins.remove(left)


@contextmanager
def loaded(name: str, sets: int, nodes: int = 32768) -> Iterator[Kernel]:
    """The program in a pin directory of that name, with a table of `sets` sets; gone afterwards."""
    sizes = Sizes(sets, nodes, possible_cpus())
    pin_dir = BPFFS / f"valkyrie-{name}-{os.getpid()}"
    _sweep(name)
    try:
        build(pin_dir, sizes)
        kernel = Kernel(pin_dir)
        try:
            yield kernel
        finally:
            kernel.close()
    finally:
        pins.remove(pin_dir)


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Stay on one CPU, whose leases and counters are then the ones in use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
