# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds a packet of programs beside each other, by BPF_PROG_TEST_RUN with many repeats.

The packet gets a new source each time (harness.bpf.c), then the program under test runs by a tail
call. Rounds of all programs follow each other, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from typing import Self

from pyroute2 import IPRoute

from support.reference.frames import ethernet, ipv4, ipv6, udp
from valkyrie.control.dataplane import bpf
from valkyrie.control.lab.compile import compiled
from valkyrie.control.lab.netns import Namespace

HERE = Path(__file__).parent
SOURCE = HERE / "harness.bpf.c"
ORDERS = struct.Struct("=6I")
PROGRAMS = 4
XDP_ABORTED = 0
LOOPBACK = 1
BASE4 = 0x0A000000
PAYLOAD = bytes(18)


@dataclass(frozen=True)
class Sources:
    """Sources of the packets: `count` of them from `base` on, `stride` apart."""

    count: int
    base: int = BASE4
    stride: int = 1


@dataclass(frozen=True)
class Case:
    """A program under test, on packets of some sources."""

    program: int
    frame: bytes
    sources: Sources


def udp4(dport: int = 53) -> bytes:
    """An IPv4 frame of 60 bytes."""
    return ethernet(0x0800, ipv4(BASE4.to_bytes(4, "big"), b"\xc6\x33\x64\1", 17, udp(4000, dport, PAYLOAD)))


def udp6(dport: int = 53) -> bytes:
    """An IPv6 frame of 80 bytes, from 2001:db8::1."""
    source, destination = (ip_address(text).packed for text in ("2001:db8::1", "2001:db8:ffff::2"))
    return ethernet(0x86DD, ipv6(source, destination, 17, udp(4000, dport, PAYLOAD)))


def _hold(program: int) -> None:
    with IPRoute() as ip:
        ip.link("set", index=LOOPBACK, xdp_fd=program)


class Harness:
    """The loaded harness; a context manager.

    The kernel keeps a dispatcher of the XDP programs in use, and a test run of a program that no
    device uses changes it twice, 10 ms each. So a device that sees no packets holds the harness.
    """

    def __init__(self) -> None:
        self._loaded = compiled(SOURCE, ["harness", "null"], ["orders", "programs"])
        self.null = self._loaded.programs["null"]
        self._holder = Namespace()
        self._holder.call(_hold, self._loaded.programs["harness"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.close()
        self._loaded.__exit__()

    def aim(self, case: Case, *, shuffle: bool = True) -> None:
        """Have go() run the case."""
        orders = ORDERS.pack(0, case.sources.count, case.sources.base, case.sources.stride, int(shuffle), 0)
        bpf.map_update(self._loaded.maps["programs"], bytes(4), struct.pack("=I", case.program))
        bpf.map_update(self._loaded.maps["orders"], bytes(4), orders)

    def go(self, frame: bytes, packets: int) -> int:
        """Mean ns a packet. Raises AssertionError when the program did not run."""
        action, _, nanoseconds = bpf.test_run(self._loaded.programs["harness"], frame, repeat=packets)
        assert action != XDP_ABORTED, "the tail call into the program under test failed"
        return nanoseconds

    def run(self, case: Case, packets: int, *, shuffle: bool = True) -> int:
        """Mean ns a packet of the case."""
        self.aim(case, shuffle=shuffle)
        return self.go(case.frame, packets)

    def compare(
        self, cases: Mapping[str, Case], *, packets: int, rounds: int, warm: int = 0
    ) -> dict[str, list[int]]:
        """ns a packet of each case in each round, on one CPU.

        Before the first round every source of a case sends one packet (at least `warm` packets).
        """
        taken: dict[str, list[int]] = {name: [] for name in cases}
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(before)})
        try:
            for case in cases.values():
                self.run(case, max(case.sources.count, warm, 1), shuffle=False)
            for _ in range(rounds):
                for name, case in cases.items():
                    taken[name].append(self.run(case, packets))
        finally:
            os.sched_setaffinity(0, before)
        return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(above, below, strict=True))
