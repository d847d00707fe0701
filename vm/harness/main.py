# SPDX-License-Identifier: Apache-2.0
"""The command line of vm/run, and one run after the other as it asks."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import report, stop
from harness.errors import VmError
from harness.network import run_folder
from harness.recipe import RELEASES
from harness.session import Wishes, session

RESULTS = Path("/var/tmp/valkyrie-vm")  # noqa: S108 root's folder, made with mode 0700 below
QUICK_S, FULL_S = 12 * 60, 60 * 60
STOPPED = 130


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and the rest, which is pytest's."""
    parser = argparse.ArgumentParser(
        prog="./appliance vm-test",
        description="Tests on a whole virtual machine.",
        epilog="Other arguments go to pytest.",
    )
    parser.add_argument("--release", choices=[*RELEASES, "all"], default=RELEASES[0])
    parser.add_argument("--quick", action="store_true", help="the tests marked quick, as CI runs them")
    parser.add_argument(
        "--coverage", action="store_true", help="keep which lines of the daemon the tests run"
    )
    parser.add_argument("--keep", action="store_true", help="after the tests leave it running, until Ctrl-C")
    parser.add_argument("--up", action="store_true", help="run no tests: a lab to work in, until Ctrl-C")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help=f"where logs go (default {RESULTS}/RELEASE)"
    )
    parser.add_argument("--deadline", type=int, metavar="S", help="give up after so many seconds")
    return parser.parse_known_args(argv)


def private_folder(path: Path) -> Path:
    """An empty folder for a run's results, of root alone."""
    if path.is_symlink() or (path.exists() and path.stat().st_uid != os.getuid()):
        raise VmError(f"{path} is not a folder of yours", hint="Name another one: --results DIR")
    if path.exists() and any(path.iterdir()) and not (path / "timings.json").exists():
        raise VmError(
            f"{path} holds other things than results of a run", hint="Name another one: --results DIR"
        )
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    return path


def run(argv: Sequence[str]) -> int:
    """Everything; the exit code is pytest's, or 1 where it did not come to that."""
    told, rest = parse(argv)
    if os.getuid() != 0:
        raise VmError(
            "vm-test needs root: it makes network namespaces.", hint="Run: sudo ./appliance vm-test"
        )
    releases = RELEASES if told.release == "all" else (told.release,)
    stop.arm(told.deadline or (QUICK_S if told.quick else FULL_S) * len(releases))
    worst = 0
    with run_folder(report.say) as mine:
        for release in releases:
            results = private_folder((told.results or RESULTS) / release)
            wishes = Wishes(
                release=release,
                results=results,
                folder=mine,
                quick=told.quick,
                coverage=told.coverage,
                tests=not told.up,
                keep=told.keep or told.up,
                pytest=tuple(rest),
            )
            worst = session(wishes) or worst
    return worst


def main() -> int:
    try:
        return run(sys.argv[1:])
    except (VmError, stop.Late) as error:
        sys.stderr.write(f"vm: {error}\n")
        return 1
    except stop.Stopped:
        sys.stderr.write("vm: stopped; nothing is left running\n")
        return STOPPED
