# SPDX-License-Identifier: Apache-2.0
"""A run of vm/run that comes to no end, beside this one: given up in time, logs kept, nothing else left."""

import signal
import subprocess
from pathlib import Path

import pytest

from harness.lab import Lab
from harness.network import NAMESPACES, PREFIX, RUNS, run_folder
from harness.provision import CHECKOUT

DEADLINE_S = 10  # before any guest is installed, and mostly before it is up
PATIENCE_S = 90
HINT = "  See the logs in its results."
LOGS = ("console.log", "qemu.log", "lab.json", "timings.json")


def command_lines() -> list[str]:
    """What runs on this host."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.parametrize("end", ["deadline", "killed"])
def test_a_run_that_comes_to_no_end_leaves_its_logs_and_nothing_else(
    lab: Lab, tmp_path: Path, end: str
) -> None:
    if lab.control is None:
        pytest.skip("this lab is not one of vm/run")
    said: list[str] = []
    results = tmp_path / "results"
    argv = [str(CHECKOUT / "vm/run"), "--up", "--quick", "--release", lab.release, "--results", str(results)]
    with subprocess.Popen(
        [*argv, "--deadline", str(DEADLINE_S if end == "deadline" else PATIENCE_S)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        if end == "killed":
            assert run.stdout is not None
            while not run.stdout.readline().startswith("vm: boot:"):
                assert run.poll() is None
            run.send_signal(signal.SIGKILL)
        _, errors = run.communicate(timeout=PATIENCE_S)
    if end == "deadline":
        assert run.returncode == 1
        said = errors.splitlines()
        assert said == [f"vm: the run has not ended within {DEADLINE_S} s and was given up", HINT]
    else:
        with run_folder(said.append):  # as the next run does it
            assert said == [f"removed what a killed run left: {PREFIX}{run.pid}"]
    assert not (NAMESPACES / f"{PREFIX}{run.pid}").exists()
    assert not (RUNS / str(run.pid)).exists()
    for name in LOGS:
        assert (results / lab.release / name).exists(), name
    assert not [line for line in command_lines() if str(results) in line]
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
