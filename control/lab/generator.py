# SPDX-License-Identifier: Apache-2.0
"""The kernel as a packet generator: millions of frames a second out of a veth device.

bpf(BPF_PROG_TEST_RUN) with live frames hands each frame that generator.bpf.c redirects straight to
the device's peer. The peer takes them at XDP: it needs a native XDP program (or GRO on).

The kernel keeps a dispatcher of the XDP programs in use, and a test run of a program that no
device uses changes it twice, 10 ms each. So the program is held by a spare device as well, which
is never up: a run of 64 frames then takes 0.1 ms instead of 24.
"""

import ctypes
import ipaddress
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pyroute2 import IPRoute

from valkyrie.control.dataplane import bpf
from valkyrie.control.errors import DataplaneError
from valkyrie.control.lab.compile import compiled
from valkyrie.control.lab.netns import Namespace
from valkyrie.control.lab.pace import Progress, Sent, send_paced

SOURCE = Path(__file__).with_name("generator.bpf.c")
LIVE_FRAMES = 1 << 1
STREAMS = 16  # that can send at a time
BURST = 128  # frames between two beats
BATCH = 64  # frames the kernel makes at a time; a veth's ring takes 256
FLAT_OUT = 64 * BATCH  # frames a call when no rate is set
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
PICK = {"none": 0, "next": 1, "random": 2}
_ORDERS = struct.Struct("=6I3Q")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Sources:
    """Which source addresses frames carry: `count` of them upwards from the frame's own.

    IPv4 sources are neighbours; IPv6 sources are 2^32 apart, so each is in a /64 of its own (the
    count is added to the second 32-bit word). `pick` is none (the frame as it is), next (one after
    another) or random.
    """

    count: int = 1
    pick: str = "none"


def _orders(ifindex: int, frame: bytes, sources: Sources, beat_ns: int) -> bytes:
    """The value of the program's map: struct orders."""
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    base = checksum = 0
    if ethertype == ETHERTYPE_IPV4 and len(frame) >= 34:
        header = bytearray(frame[14:34])
        base = int(ipaddress.IPv4Address(bytes(header[12:16])))
        header[10:16] = bytes(6)
        checksum = sum(struct.unpack("!10H", header))
        while checksum > 0xFFFF:
            checksum = (checksum & 0xFFFF) + (checksum >> 16)
    elif ethertype == ETHERTYPE_IPV6 and len(frame) >= 54:
        (base,) = struct.unpack_from("!I", frame, 26)
    return _ORDERS.pack(ifindex, PICK[sources.pick], sources.count, base, checksum, beat_ns, 0, 0, 0)


def _hold(program: int, stream: int) -> int:
    """Attach the program to a new device that stays down; its ifindex."""
    with IPRoute() as ip:
        name = f"spare{program}.{stream}"
        ip.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}p"})
        index: int = ip.link_lookup(ifname=name)[0]
        ip.link("set", index=index, xdp_fd=program)
        return index


def _release(index: int) -> None:
    with IPRoute() as ip:
        ip.link("del", index=index)


class Generator:
    """Sends frames, under changing sources, out of a device of a namespace; a context manager.

    Up to STREAMS threads may send at a time, each with a `stream` number of its own.
    """

    def __init__(self, namespace: Namespace, ifindex: int) -> None:
        self._namespace = namespace
        self._ifindex = ifindex
        flags = [f"-DSTREAMS={STREAMS}", f"-DBURST={BURST}"]
        self._loaded = compiled(SOURCE, ["generate"], ["orders"], flags)
        self._program = self._loaded.programs["generate"]
        self._spare: dict[int, int] = {}

    def close(self) -> None:
        """Give the program and its spare device up."""
        for device in self._spare.values():
            self._namespace.call(_release, device)
        self._loaded.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _device(self, stream: int) -> int:
        """The spare device of a stream, made at its first use."""
        if stream not in self._spare:
            if len(self._spare) == STREAMS:
                raise DataplaneError(
                    f"more than {STREAMS} streams of one generator", "make another generator"
                )
            self._spare[stream] = self._namespace.call(_hold, self._program, stream)
        return self._spare[stream]

    def send(
        self,
        frame: bytes,
        *,
        sources: Sources | None = None,
        frames: int | None = None,
        seconds: float | None = None,
        rate: float | None = None,
        beat_ns: int = 0,
        cpu: int | None = None,
        stream: int = 0,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Sent:
        """Send until `frames` are out, `seconds` have passed or `stop` says so; without end otherwise.

        `rate` is in frames a second, None for all that the CPU gives; with `beat_ns` the kernel leaves so
        much time between the beginnings of bursts of BURST frames; `cpu` is where to run; `progress`
        counts along. The frame is whole, from its Ethernet header. Raises DataplaneError if the kernel
        refuses.
        """
        device = self._device(stream)
        orders = _orders(self._ifindex, frame, sources or Sources(), beat_ns)
        bpf.map_update(self._loaded.maps["orders"], struct.pack("=I", device), orders)
        run = _live_run(self._program, device, frame)

        def work() -> Sent:
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            return send_paced(
                run,
                progress or Progress(),
                frames=frames,
                seconds=seconds,
                rate=rate,
                at_once=FLAT_OUT,
                stop=stop,
            )

        return self._namespace.apart(work)


def _live_run(program: int, device: int, frame: bytes) -> Callable[[int], None]:
    """A function that has the kernel send the frame so many times."""
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, len(frame), 0, device, 0, 0), 24)
    number = bpf.SYSCALL[os.uname().machine]

    def run(count: int) -> None:
        attributes = struct.pack(
            "=IIIIQQIIIIQQIII", program, 0, len(frame), 0, ctypes.addressof(data), 0, count, 0, len(context),
            0, ctypes.addressof(context), 0, LIVE_FRAMES, 0, min(count, BATCH),
        ).ljust(128, b"\0")  # fmt: skip
        if _libc.syscall(number, bpf.PROG_TEST_RUN, attributes, 80) < 0:
            text = os.strerror(ctypes.get_errno())
            what = f"generating {count} frames of {len(frame)} bytes: {text}"
            raise DataplaneError(what, "Linux 5.18 or newer can")

    return run
