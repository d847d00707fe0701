# SPDX-License-Identifier: Apache-2.0
"""ns a packet of the program that can be watched (captures, observations), beside one that cannot.

Nobody looks: that is the budget. With a capture armed that wants none of the packets the cost is told.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench.harness import Case, Harness, Sources, ratio, udp4
from bench.rows import Row, row
from support.bpf import BPFFS, Kernel
from support.policy import limit, publish
from valkyrie.control.capture.filter import Filter
from valkyrie.control.capture.filter import row as capture_row
from valkyrie.control.dataplane import build, pins
from valkyrie.control.dataplane.source import FOLDER, MAIN, Sizes, possible_cpus
from valkyrie.control.dataplane.watches import Watches

BUDGET = "<= 1.03"
SIZES = Sizes(131072, 32768, possible_cpus())
PACKETS, ROUNDS = 200_000, 31
LIVE = (1_000, 64_000)
FOR_EVER = 1 << 62
HOOKS = ("if (p->capturing)", "if (rules->observers) {")


def run() -> Iterator[Row]:
    with Harness() as harness, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sources = {"plain": _without_hooks(folder), "idle": MAIN, "armed": MAIN}
        kernels = {name: stack.enter_context(_loaded(name, main)) for name, main in sources.items()}
        for kernel in kernels.values():
            publish(kernel, [limit(rate="10/h", burst="100000", key="src")])
        plane = kernels["armed"].dp
        watches = Watches(plane.control, plane.watch, plane.watch_stats)
        watches.capture(0, capture_row(Filter(reason="bad_tcp"), None, 1, FOR_EVER))
        for live in LIVE:
            cases = {
                name: Case(kernel.dp.fd(pins.PROGRAM), udp4(), Sources(live))
                for name, kernel in kernels.items()
            }
            taken = harness.compare(cases, packets=PACKETS, rounds=ROUNDS)
            head = f"ns a packet, {live:,} live buckets"
            yield row(f"{head}: nobody looks", median(taken["idle"]), "ns")
            yield row(
                f"{head}: nobody looks / cannot be watched", ratio(taken["idle"], taken["plain"]), "x", BUDGET
            )
            yield row(
                f"{head}: a capture armed / cannot be watched", ratio(taken["armed"], taken["plain"]), "x"
            )


def _without_hooks(folder: Path) -> Path:
    """The program's sources, changed so that packets never go on to those who look."""
    shutil.copytree(FOLDER, folder / "bpf")
    main = folder / "bpf" / MAIN.name
    text = main.read_text()
    for hook in HOOKS:
        assert hook in text, f"{MAIN.name} has no {hook!r}"
        text = text.replace(hook, hook.replace(hook[hook.index("(") : hook.index(")") + 1], "(0)"))
    main.write_text(text)
    return main


@contextmanager
def _loaded(name: str, main: Path) -> Iterator[Kernel]:
    pin_dir = BPFFS / f"valkyrie-watching-{name}-{os.getpid()}"
    try:
        build.run_loader(pin_dir, SIZES, main)
        kernel = Kernel(pin_dir)
        try:
            yield kernel
        finally:
            kernel.close()
    finally:
        pins.remove(pin_dir)
