# SPDX-License-Identifier: Apache-2.0
"""Packets a second of one core over veth: this program beside a bare drop, nftables and iptables.

Each contender has a namespace of its own behind a veth pair. The receiving end is polled by a kernel thread
that is pinned to one CPU; the generator has another. A rate is the packets that the thread handled by the
CPU time that it took, so that neither a generator slower than the thread nor other work on the machine
counts. Frames come in bursts with a little more time between them than the thread took for one before: a
generator whose frames find the ring full gives their pages back, and contends with the thread for the lock
of their pool, which is no part of what is measured. Nearly all packets are over the limit and are dropped,
so that nobody pays for the stack behind; what passes is dropped there at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from pyroute2 import IPRoute

from bench.harness import SOURCE as HARNESS
from bench.harness import ratio
from bench.rows import Row, row
from support.bpf import loaded
from support.policy import limit, publish
from support.reference.frames import ipv4, udp
from valkyrie.control.dataplane import pins
from valkyrie.control.lab import generator as lab
from valkyrie.control.lab.compile import compiled
from valkyrie.control.lab.generator import Generator, Sources
from valkyrie.control.lab.netns import Namespace, join

NIC = "eth0"
SENDING_CPU, RECEIVING_CPU = 0, 1
ROUNDS, SECONDS = 7, 0.4
RING, FILL = 256, 128
ROOM = 1.25  # time for a burst, in times that the thread takes for it
TABLE = 1 << 18  # sets: two million buckets
PLACES = 1 << 21
SOURCE = 0xC6120000  # 198.18.0.0
DROP_BUDGET, KERNEL_BUDGET = ">= 0.6", ">= 3.5"
BARE, READS = "bare XDP_DROP", "XDP_DROP that reads the packet"
NFT = """
table netdev bench {{
  set seen {{ type ipv4_addr; size {places}; flags dynamic; }}
  chain in {{
    type filter hook ingress device {nic} priority 0; policy accept;
    add @seen {{ ip saddr limit rate over 1/hour burst 1 packets }} drop
  }}
}}
"""
HASHLIMIT = (
    "iptables", "-t", "raw", "-A", "PREROUTING", "-m", "hashlimit", "--hashlimit-name", "bench",
    "--hashlimit-above", "1/hour", "--hashlimit-burst", "1", "--hashlimit-mode", "srcip",
    "--hashlimit-htable-size", str(1 << 20), "--hashlimit-htable-max", str(PLACES),
    "--hashlimit-htable-expire", "3600000", "-j", "DROP",
)  # fmt: skip


@dataclass
class Contender:
    """A policed namespace, the kernel thread that polls its NIC, and packets a second by rounds."""

    inside: Namespace
    generator: Generator
    frame: bytes
    nic: int
    thread: int
    packet_ns: float = 0.0
    rates: list[float] = field(default_factory=list)

    def spent(self) -> tuple[int, int]:
        """Packets that the thread has handled, and the ns of CPU time that it has taken."""
        with IPRoute() as ip:
            packets = int(ip.get_links(self.nic)[0].get_attr("IFLA_STATS64")["rx_packets"])
        return packets, int(Path(f"/proc/{self.thread}/schedstat").read_text().split()[0])


def run() -> Iterator[Row]:
    """At 1,000 sources, then at a million."""
    with _whole_rings():
        for count in (1_000, 1_000_000):
            yield from _at(count)


def _at(count: int) -> Iterator[Row]:
    with ExitStack() as stack:
        outside = stack.enter_context(Namespace())
        drops = stack.enter_context(compiled(HARNESS, ["null", "reads"])).programs
        kernel = stack.enter_context(loaded("bench", TABLE))
        publish(kernel, [limit(rate="1/h", burst="1", key="src")])
        police = kernel.dp.fd(pins.PROGRAM)
        contenders = {
            BARE: _contender(stack, outside, _xdp(drops["null"])),
            READS: _contender(stack, outside, _xdp(drops["reads"])),
            "police": _contender(stack, outside, _xdp(police)),
            "nftables": _contender(stack, outside, _nftables),
            "hashlimit": _contender(stack, outside, _hashlimit),
        }
        for name, contender in contenders.items():
            if name not in (BARE, READS):
                _fill(contender, count)
            _round(contender, count)  # tells how much time it needs
        for _ in range(ROUNDS):
            for contender in contenders.values():
                contender.rates.append(_round(contender, count))
    yield from _rows(contenders, count)


def _rows(contenders: dict[str, Contender], count: int) -> Iterator[Row]:
    told = f"{count:,} sources"
    for name, contender in contenders.items():
        yield row(f"packets/s of one core over veth, {told}: {name}", median(contender.rates), "packets/s")
    police = contenders["police"].rates
    few = count == 1_000
    budgets = {
        BARE: DROP_BUDGET if few else None,
        READS: None,
        "nftables": KERNEL_BUDGET if few else None,
        "hashlimit": KERNEL_BUDGET,
    }
    for name, budget in budgets.items():
        yield row(f"police / {name}, {told}", ratio(police, contenders[name].rates), "x", budget)


def _contender(stack: ExitStack, outside: Namespace, arm: Callable[[Namespace, int], None]) -> Contender:
    inside = stack.enter_context(Namespace())
    near, far = join(outside, f"w{inside.fd}", inside, NIC, right_addresses=("192.0.2.1/24",))
    arm(inside, far[0])
    _inside(inside, "iptables", "-t", "raw", "-A", "PREROUTING", "-j", "DROP")
    thread = _own_thread(inside)
    generator = stack.enter_context(Generator(outside, near[0]))
    packet = ipv4(SOURCE.to_bytes(4, "big"), b"\xc0\0\2\1", 17, udp(4000, 9, bytes(18)))
    header = bytes.fromhex((far[1] + near[1]).replace(":", "")) + b"\x08\0"
    return Contender(inside, generator, header + packet, far[0], thread)


def _own_thread(inside: Namespace) -> int:
    """Have the NIC polled by a kernel thread, on the CPU for receiving, before other work; its id."""
    before = _threads()
    script = f"mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{NIC}/threaded"
    subprocess.run(["nsenter", f"--net={inside.path}", "unshare", "--mount", "sh", "-ec", script], check=True)
    (thread,) = _threads() - before
    os.sched_setaffinity(thread, {RECEIVING_CPU})
    os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
    return thread


def _threads() -> set[int]:
    """Kernel threads that poll a NIC of this name."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "comm").read_text()
        except OSError:
            continue  # it has ended
        if name.startswith(f"napi/{NIC}"):
            found.add(int(folder.name))
    return found


def _xdp(program: int) -> Callable[[Namespace, int], None]:
    def attach(nic: int) -> None:
        with IPRoute() as ip:
            ip.link("set", index=nic, xdp_fd=program)

    return lambda inside, nic: inside.call(attach, nic)


def _inside(inside: Namespace, *argv: str, text: str | None = None) -> None:
    subprocess.run(inside.command(*argv), input=text, text=True, check=True)


def _nftables(inside: Namespace, nic: int) -> None:
    _polled(inside)
    _inside(inside, "nft", "-f", "-", text=NFT.format(places=PLACES, nic=NIC))


def _hashlimit(inside: Namespace, nic: int) -> None:
    _polled(inside)
    _inside(inside, *HASHLIMIT)


def _polled(inside: Namespace) -> None:
    """Without an XDP program a veth takes redirected frames only while it has GRO."""
    _inside(inside, "ethtool", "-K", NIC, "gro", "on")


def _fill(contender: Contender, count: int) -> None:
    """One packet of each source, no more at once than the ring takes."""
    for first in range(0, count, FILL):
        frame = bytearray(contender.frame)
        frame[26:30] = (SOURCE + first).to_bytes(4, "big")
        contender.generator.send(
            bytes(frame), sources=Sources(FILL, "next"), frames=min(FILL, count - first), cpu=SENDING_CPU
        )


def _round(contender: Contender, count: int) -> float:
    """Packets a second of CPU time while the generator sends as much as is handled, from random sources."""
    packets, busy = contender.inside.call(contender.spent)
    contender.generator.send(
        contender.frame,
        sources=Sources(count, "random"),
        seconds=SECONDS,
        beat_ns=round(ROOM * lab.BURST * contender.packet_ns),
        cpu=SENDING_CPU,
    )
    packets_after, busy_after = contender.inside.call(contender.spent)
    contender.packet_ns = (busy_after - busy) / (packets_after - packets)
    return 1e9 / contender.packet_ns


@contextmanager
def _whole_rings() -> Iterator[None]:
    """Have the generator send as many frames at a time as a veth's ring takes: the thread sleeps less."""
    before = lab.BATCH
    lab.BATCH = RING
    try:
        yield
    finally:
        lab.BATCH = before
