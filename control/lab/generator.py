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
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pyroute2 import IPRoute

from valkyrie.control.dataplane import bpf
from valkyrie.control.errors import DataplaneError
from valkyrie.control.lab.compile import compiled
from valkyrie.control.lab.netns import Namespace

SOURCE = Path(__file__).with_name("generator.bpf.c")
LIVE_FRAMES = 1 << 1
STREAMS = 16  # that can send at a time
BATCH = 64  # frames the kernel makes at a time; a veth's ring takes 256
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
PICK = {"none": 0, "next": 1, "random": 2}
_ORDERS = struct.Struct("=6IQ")
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


@dataclass(frozen=True)
class Sent:
    """Frames handed to the device, and the monotonic ns before the first and after the last."""

    frames: int
    begin_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.frames else 0.0


def _orders(ifindex: int, frame: bytes, sources: Sources) -> bytes:
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
    return _ORDERS.pack(ifindex, PICK[sources.pick], sources.count, base, checksum, 0, 0)


def _hold(program: int) -> int:
    """Attach the program to a new device that stays down, a receive queue a stream; its ifindex."""
    with IPRoute() as ip:
        name = f"spare{program}"
        ip.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}p"}, num_rx_queues=STREAMS)
        index: int = ip.link_lookup(ifname=name)[0]
        ip.link("set", index=index, xdp_fd=program)
        return index


def _release(index: int) -> None:
    with IPRoute() as ip:
        ip.link("del", index=index)


class Generator:
    """Sends frames, under changing sources, out of a device of a namespace; a context manager.

    Up to STREAMS threads may send at a time, each as a stream of its own.
    """

    def __init__(self, namespace: Namespace, ifindex: int) -> None:
        self._namespace = namespace
        self._ifindex = ifindex
        self._loaded = compiled(SOURCE, ["generate"], ["orders"], [f"-DSTREAMS={STREAMS}"])
        self._program = self._loaded.programs["generate"]
        self._spare = namespace.call(_hold, self._program)

    def close(self) -> None:
        """Give the program and its spare device up."""
        self._namespace.call(_release, self._spare)
        self._loaded.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self,
        frame: bytes,
        *,
        sources: Sources | None = None,
        frames: int | None = None,
        seconds: float | None = None,
        rate: float | None = None,
        cpu: int | None = None,
        stream: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> Sent:
        """Send until `frames` are out, `seconds` have passed or `stop` says so; without end otherwise.

        `rate` is in frames a second, None for all that the CPU gives; `cpu` is where to run. The
        frame is whole, from its Ethernet header. Raises DataplaneError if the kernel refuses.
        """
        orders = _orders(self._ifindex, frame, sources or Sources())
        bpf.map_update(self._loaded.maps["orders"], struct.pack("=I", stream), orders)
        run = _live_run(self._program, self._spare, stream, frame)
        result: list[Sent | BaseException] = []

        def work() -> None:
            try:
                self._namespace.enter()
                if cpu is not None:
                    os.sched_setaffinity(0, {cpu})
                result.append(_send(run, frames, seconds, rate, stop))
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                result.append(error)

        thread = threading.Thread(target=work, name="generator")
        thread.start()
        thread.join()
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]


def _send(
    run: Callable[[int], None],
    frames: int | None,
    seconds: float | None,
    rate: float | None,
    stop: Callable[[], bool],
) -> Sent:
    begin = time.monotonic_ns()
    end = begin + round(seconds * 1e9) if seconds is not None else None
    sent = 0
    while True:
        now = time.monotonic_ns()
        if (end is not None and now >= end) or (frames is not None and sent >= frames) or stop():
            return Sent(sent, begin, now)
        due = 64 * BATCH if rate is None else int((now - begin) * rate / 1e9) + 1 - sent
        if frames is not None:
            due = min(due, frames - sent)
        if due > 0:
            run(due)
            sent += due
        else:
            time.sleep(min(1 / (rate or 1), 0.001))


def _live_run(program: int, device: int, stream: int, frame: bytes) -> Callable[[int], None]:
    """A function that has the kernel send the frame so many times."""
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, len(frame), 0, device, stream, 0), 24)
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
