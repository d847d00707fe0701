# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - a table for people
"""The performance budgets: `sudo ./appliance bench [--json FILE] [--only NAME]...`.

Prints a table as it goes. Exit status 1 if a budget is missed, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    accuracy,
    classification,
    daemon,
    events,
    everything,
    kernel_calls,
    memory,
    nanoseconds,
    store_calls,
    store_failover,
    store_sync,
    telemetry,
    watching,
    wire,
)
from bench.rows import Row, line, write_json

BENCHMARKS: dict[str, Callable[[], Iterator[Row]]] = {
    "few-buckets": nanoseconds.few,
    "many-buckets": nanoseconds.many,
    "matching": classification.matching,
    "prefixes": classification.prefixes,
    "wire": wire.run,
    "accuracy": accuracy.run,
    "memory": memory.run,
    "events": events.run,
    "watching": watching.run,
    "everything": everything.run,
    "telemetry": telemetry.run,
    "starts": daemon.starts,
    "changes": daemon.changes,
    "store-calls": store_calls.one_at_a_time,
    "store-together": store_calls.together,
    "kernel-calls": kernel_calls.run,
    "store-sync": store_sync.run,
    "store-failover": store_failover.failover,
    "store-switch": store_failover.switch,
}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="appliance bench", description="measure the performance budgets")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write a list of {name, value, unit, budget, ok}"
    )
    parser.add_argument(
        "--only", action="append", choices=sorted(BENCHMARKS), help="this benchmark; repeatable"
    )
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("it loads BPF programs and makes network namespaces: run it with sudo")
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # other work on the machine waits
    rows: list[Row] = []
    for name in given.only or BENCHMARKS:
        started = time.monotonic()
        print(f"\n{name}", flush=True)
        for entry in BENCHMARKS[name]():
            rows.append(entry)
            print(f"  {line(entry)}", flush=True)
        print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
    if given.json is not None:
        write_json(given.json, rows)
    missed = [entry.name for entry in rows if not entry.ok]
    kept = sum(entry.budget is not None for entry in rows) - len(missed)
    print(f"\n{kept} budgets kept, {len(missed)} missed" + "".join(f"\n  missed: {name}" for name in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
