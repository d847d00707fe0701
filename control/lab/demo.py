# SPDX-License-Identifier: Apache-2.0
"""The main job on this host, in namespaces: `./appliance demo`.

Two namespaces joined by veth: `wire` sends, `eth0` is policed by the real daemon. Limits of
several kinds are set by the real command line, their traffic is sent tenfold and more, and what
passed is counted behind XDP by the kernel's packet sockets. Exit status 1 if anything deviates from
what must pass by more than one per cent. Nothing stays behind, however it ends.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NoReturn

from pyroute2 import IPRoute
from rich.console import Console

from valkyrie.control.errors import ValkyrieError
from valkyrie.control.lab import report, view
from valkyrie.control.lab.counting import Count, port_filter
from valkyrie.control.lab.daemon import FEW_EVENTS, Daemon
from valkyrie.control.lab.generator import Generator
from valkyrie.control.lab.netns import Namespace, join
from valkyrie.control.lab.pace import Progress, Sent
from valkyrie.control.lab.private import private_place
from valkyrie.control.lab.scenario import FLOOD, STREAMS, Stream, framed
from valkyrie.control.lab.wire import send_frames

WIRE, NIC = "wire", "eth0"
MIXED_S, FLOOD_S = 12.0, 5.0
SETTLE_S = 0.2  # a frame is through the veth long before
INTERRUPTED = 130


@dataclass
class Traffic:
    """A stream on its way: how much was sent, how much came through."""

    stream: Stream
    progress: Progress
    count: Count
    sent: "Future[Sent]"


@dataclass(frozen=True)
class Lab:
    """The two namespaces, the generator between them, and the daemon."""

    outside: Namespace
    inside: Namespace
    generator: Generator
    daemon: Daemon
    macs: tuple[str, str]
    nic: int

    def lost(self) -> int:
        """Frames that the policed veth had no room for, by the kernel's count; XDP never saw them."""

        def ask() -> int:
            with IPRoute() as ip:
                return int(ip.get_links(self.nic)[0].get_attr("IFLA_STATS64")["rx_dropped"])

        return self.inside.call(ask)


def build(stack: ExitStack, more: str = FEW_EVENTS) -> Lab:
    """Everything up to a running daemon that polices nothing yet; `more` are lines of its settings."""
    place = stack.enter_context(private_place())
    outside, inside = stack.enter_context(Namespace()), stack.enter_context(Namespace())
    near, far = join(
        outside,
        WIRE,
        inside,
        NIC,
        left_addresses=("192.0.2.2/24",),
        right_addresses=("192.0.2.1/24", "2001:db8::1/64"),
        queues=os.cpu_count() or 1,  # each CPU fills and empties a ring of its own, so that none runs over
    )
    daemon = stack.enter_context(Daemon(inside, place, more))
    generator = stack.enter_context(Generator(outside, near[0]))
    return Lab(outside, inside, generator, daemon, (near[1], far[1]), far[0])


def say(console: Console, *arguments: str, lab: Lab) -> None:
    """Run the command line and show what is typed and what it answers."""
    shown = " ".join(f"'{word}'" if " " in word else word for word in arguments)
    console.print(f"$ valkyrie-ctl {shown}", style="bold", markup=False, highlight=False, soft_wrap=True)
    answer = lab.daemon.ctl(*arguments).rstrip()
    if answer:
        console.print(answer, markup=False, highlight=False, soft_wrap=True)


def _send(
    lab: Lab, number: int, one: Stream, progress: Progress, stop: Callable[[], bool], seconds: float
) -> Sent:
    frame = framed(one, *lab.macs)
    if one.scapy and one.rate is not None:
        return send_frames(lab.outside, WIRE, frame, progress, rate=one.rate, seconds=seconds, stop=stop)
    return lab.generator.send(
        frame,
        sources=one.sources,
        seconds=seconds,
        rate=one.rate,
        stream=number,
        progress=progress,
        stop=stop,
    )


def run(
    lab: Lab,
    streams: Sequence[Stream],
    seconds: float,
    title: str,
    show: Callable[[str, list[view.Pace]], None],
) -> list[report.Row]:
    """Send the streams all at once and show them; the rows of what came of them."""
    stop = threading.Event()
    lost = lab.lost()
    with _held_back() as check, ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(max_workers=len(streams)))
        stack.callback(stop.set)
        traffic = []
        for number, stream in enumerate(streams):
            code = port_filter(stream.version, stream.protocol, stream.port, stream.flag)
            count = stack.enter_context(lab.inside.call(Count, NIC, code))
            progress = Progress()
            sent = threads.submit(_send, lab, number, stream, progress, stop.is_set, seconds)
            traffic.append(Traffic(stream, progress, count, sent))
        _watch(traffic, title, show, check)
        time.sleep(SETTLE_S)
        return _rows(lab, traffic, lab.lost() - lost)


@contextmanager
def _held_back() -> Iterator[Callable[[], None]]:
    """Within, Ctrl-C and SIGTERM are noted, and raise where the given function is called. Raised just
    anywhere they can leave a lock taken that the threads of the traffic wait for.
    """
    noted: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda got, _: noted.append(got)) for number in numbers]

    def check() -> None:
        if noted:
            raise KeyboardInterrupt

    try:
        yield check
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    check()


def _watch(
    traffic: Sequence[Traffic],
    title: str,
    show: Callable[[str, list[view.Pace]], None],
    check: Callable[[], None],
) -> None:
    """Show the streams while all of them are on their way; back when the last has ended."""
    began = before = time.monotonic()
    last = [(0, 0)] * len(traffic)
    sent = [one.sent for one in traffic]
    while not wait(sent, timeout=view.REFRESH_S, return_when=FIRST_COMPLETED).done:
        check()
        now = time.monotonic()
        new = [(one.progress.frames, one.count.read()) for one in traffic]
        paces = [
            view.Pace(
                one.stream.name,
                one.stream.told,
                (frames - was[0]) / (now - before),
                (came - was[1]) / (now - before),
            )
            for one, (frames, came), was in zip(traffic, new, last, strict=True)
        ]
        show(f"{title}, {now - began:.0f} s", paces)
        before, last = now, new
    while wait(sent, timeout=view.REFRESH_S).not_done:
        check()


def _rows(lab: Lab, traffic: Sequence[Traffic], lost: int) -> list[report.Row]:
    limits = {limit["name"]: limit["counters"] for limit in lab.daemon.client.get("/v1/limits")["limits"]}
    banned = lab.daemon.client.get("/v1/status")["reasons"]["kernel_ban"]["packets"]
    made: list[report.Row] = []
    for one in traffic:
        sent = one.sent.result()
        made += report.rows(
            one.stream,
            seconds=sent.seconds,
            # Whose frames were lost is known for a single stream alone; slow ones lose none.
            offered=sent.frames - (lost if len(traffic) == 1 else 0),
            passed=one.count.read(),
            counters=limits.get(one.stream.name),
            banned=banned,
        )
    return made


def demonstrate(console: Console, seconds: float) -> bool:
    """The whole demo; whether everything was within the tolerance."""
    with ExitStack() as stack:
        lab = build(stack)
        console.print(f"valkyried polices in a namespace of its own after {lab.daemon.start_seconds:.1f} s")
        say(console, "attach", NIC, lab=lab)
        for stream in (*STREAMS, FLOOD):
            if stream.limit:
                say(console, "limits", "set", stream.name, *stream.limit, lab=lab)
        with view.live(console) as show:
            rows = run(lab, STREAMS, seconds, "All at once", show)
        with view.live(console) as show:
            rows += run(lab, [FLOOD], FLOOD_S, "A flood", show)
        say(console, "limits", "explain", "src 198.18.7.3 proto udp dport 7007", lab=lab)
        say(console, "detach", NIC, lab=lab)
    view.final(console, rows)
    return all(row.ok for row in rows)


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 if all is as it must be, 1 if not, 130 after Ctrl-C, else the error's status."""
    parser = argparse.ArgumentParser(prog="appliance demo", description="the main job in a lab on this host")
    parser.add_argument("--seconds", type=float, default=MIXED_S, help="how long the mixed traffic lasts")
    given = parser.parse_args(arguments)
    console = Console()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        good = demonstrate(console, given.seconds)
    except ValkyrieError as error:
        print(f"error: {error.what}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ended before its time; nothing was left behind", file=sys.stderr)
        return INTERRUPTED
    if not good:
        print("error: what is WRONG above deviates by more than 1 %", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
