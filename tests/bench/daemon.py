# SPDX-License-Identifier: Apache-2.0
"""The daemon: how soon it enforces after its start, and after `limits set`; and its memory."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from compileall import compile_dir
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from pyroute2 import IPRoute

from bench.rows import Row, row
from valkyrie import adapters, control
from valkyrie.control import abi
from valkyrie.control.dataplane import pins
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.lab.daemon import Daemon
from valkyrie.control.lab.netns import Namespace, join
from valkyrie.control.lab.private import private_place

NIC = "eth0"
STARTS, CHANGES = 7, 200
LISTS, LISTED = 100, 1000
"""Limits that list prefixes, and how many each: 100,000 together."""
TAKE_OFF = -1
ADOPT_BUDGET, COLD_BUDGET, SET_BUDGET, MEMORY_BUDGET = "<= 0.5", "<= 3", "<= 100", "<= 80"


@dataclass(frozen=True)
class Place:
    """A namespace with a NIC, and where the daemon keeps its state and pins."""

    inside: Namespace
    folder: Path
    nic: int

    @property
    def pin_dir(self) -> Path:
        return self.folder / "bpf" / "valkyrie"

    def held(self) -> bool:
        """Whether the NIC has an XDP program."""

        def ask() -> bool:
            with IPRoute() as ip:
                return bool(ip.get_links(self.nic)[0].get_attr("IFLA_XDP").get_attr("IFLA_XDP_ATTACHED"))

        return self.inside.call(ask)

    def forget(self) -> None:
        """As a reboot does: nothing attached, nothing pinned."""

        def take_off() -> None:
            with IPRoute() as ip:
                ip.link("set", index=self.nic, xdp_fd=TAKE_OFF)

        self.inside.call(take_off)
        pins.remove(self.pin_dir)


def starts() -> Iterator[Row]:
    """From the start of the process until it answers, with the NIC policed."""
    with _place() as place:
        with Daemon(place.inside, place.folder) as daemon:
            daemon.client.post(f"/v1/nics/{NIC}/attach", {"mode": "auto"})
        adopting = [_start(place) for _ in range(STARTS)]
        cold = [_start(place, cold=True) for _ in range(STARTS)]
    for name, taken, budget in (("adopting", adopting, ADOPT_BUDGET), ("cold", cold, COLD_BUDGET)):
        told = f"daemon start until enforcing, {name}"
        yield row(f"{told}, median of {STARTS}", median(seconds for seconds, _ in taken), "s", budget)
        yield row(f"{told}, fastest", min(seconds for seconds, _ in taken), "s")
        yield row(f"{told}, CPU time with the end of the daemon", median(cpu for _, cpu in taken), "s")


def changes() -> Iterator[Row]:
    """`limits set` at 256 limits and 100,000 prefixes, and what the daemon takes beside the table."""
    with _place() as place, Daemon(place.inside, place.folder) as daemon:
        daemon.client.post(f"/v1/nics/{NIC}/attach", {"mode": "auto"})
        yield row("daemon's memory beside a million-bucket table", _beside_maps(daemon), "MB", MEMORY_BUDGET)
        daemon.client.post("/v1/apply", {"document": {"limits": _policy()}})
        taken: dict[str, list[float]] = {name: [] for name in KINDS}
        with Dataplane(place.pin_dir) as plane:
            for turn in range(CHANGES):
                for name, change in KINDS.items():
                    taken[name].append(_timed(daemon, plane, change(turn)))
        yield row(
            "daemon's memory beside the table, 256 limits and 100,000 prefixes", _beside_maps(daemon), "MB"
        )
    together = [each for values in taken.values() for each in values]
    yield row(
        "limits set until enforced, 256 limits and 100,000 prefixes, p99", _p99(together), "ms", SET_BUDGET
    )
    yield row("limits set until enforced, 256 limits and 100,000 prefixes, median", median(together), "ms")
    for name, values in taken.items():
        yield row(f"limits set until enforced, {name}, p99", _p99(values), "ms")


@contextmanager
def _place() -> Iterator[Place]:
    _compiled()
    with ExitStack() as stack:
        folder = stack.enter_context(private_place())
        outside, inside = stack.enter_context(Namespace()), stack.enter_context(Namespace())
        _, far = join(outside, "wire", inside, NIC)
        yield Place(inside, folder, far[0])


def _compiled() -> None:
    """As an installed daemon has it: its modules lie there as bytecode. A checkout may lack that, all the
    more where PYTHONDONTWRITEBYTECODE is set; then each start would compile two hundred modules.
    """
    for package in (control, adapters):
        for folder in package.__path__:
            assert compile_dir(folder, quiet=1), f"{folder} does not compile"


def _start(place: Place, *, cold: bool = False) -> tuple[float, float]:
    """Seconds until the daemon answers, policing then; and CPU seconds of it and the compiler."""
    if cold:
        place.forget()
    before = os.times()
    with Daemon(place.inside, place.folder) as daemon:
        assert place.held(), "the daemon answers before it polices"
        seconds = daemon.start_seconds
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent


def _port_limit(turn: int, *, rate: int = 1000, port: int = 1) -> dict[str, Any]:
    return {
        "name": f"port{turn % 100}",
        "match": f"proto udp dport {port + turn % 100}",
        "key": "src",
        "rate": f"{rate}/s",
    }


def _list_limit(place: int, *, rate: int = 1000, first: int = 0) -> dict[str, Any]:
    """Prefixes that have no neighbours, so that none merge."""
    begin = (10 << 24) + (place * LISTED << 5)
    prefixes = ",".join(f"{ip_address(begin + (i << 5))}/28" for i in range(LISTED - 1))
    last = f"{ip_address((11 << 24) + (place << 13) + (first << 5))}/28"
    return {"name": f"list{place}", "match": f"src {prefixes},{last}", "key": "src", "rate": f"{rate}/s"}


def _policy() -> list[dict[str, Any]]:
    """256 limits; LISTS of them list LISTED prefixes each."""
    ports = [_port_limit(i) for i in range(100)]
    rest = [
        {"name": f"net{i}", "match": f"proto tcp dport {5000 + i}", "key": "src/24", "rate": "1mbit/s"}
        for i in range(abi.MAX_LIMITS - LISTS - 100)
    ]
    return ports + rest + [_list_limit(i) for i in range(LISTS)]


KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "another rate": lambda turn: _port_limit(turn, rate=2000 + turn),
    "another port": lambda turn: _port_limit(turn, port=1000 + turn),
    "another rate for 1,000 prefixes": lambda turn: _list_limit(turn % LISTS, rate=2000 + turn),
    "one of 1,000 prefixes": lambda turn: _list_limit(turn % LISTS, first=1 + turn // LISTS),
}


def _timed(daemon: Daemon, plane: Dataplane, limit: dict[str, Any]) -> float:
    """Milliseconds until the answer; the new ruleset is in force then."""
    name, fields = limit["name"], {key: value for key, value in limit.items() if key != "name"}
    before, begin = plane.serial, time.perf_counter()
    daemon.client.put(f"/v1/limits/{name}", fields)
    taken = time.perf_counter() - begin
    assert plane.serial > before, "the daemon answers before the limit is in force"
    return taken * 1000


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98]


def _beside_maps(daemon: Daemon) -> float:
    """Resident MB of the daemon that are not pages of the BPF maps."""
    total, counts = 0, True
    for line in Path(f"/proc/{daemon._process.pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = "bpf-map" not in line
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total / 1e6
