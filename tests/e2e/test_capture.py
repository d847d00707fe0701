# SPDX-License-Identifier: Apache-2.0
"""valkyrie-ctl capture over the real daemon: what the file says; who hangs up leaves nothing armed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.appliance import PORT, Appliance
from support.way import SLOW, Way
from valkyrie.control import abi

DEADLINE_S = 20
TSHARK = shutil.which("tshark")


@pytest.fixture
def way(appliance: Appliance) -> Way:
    """Policed, and the bucket of the world's address used up: every packet is dropped."""
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    made = Way(appliance)
    assert made.passed(10) == 3
    return made


def ctl(appliance: Appliance, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [
        sys.executable,
        "-m",
        "valkyrie.control.cli.main",
        "--socket",
        str(appliance.folder / "v.sock"),
    ]
    return subprocess.Popen(
        [*command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def fed(way: Way, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What it printed, packets coming until it ends."""
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        way.passed(5)
    assert process.poll() == 0, process.stderr.read() if process.stderr and process.poll() else "it goes on"
    return process.communicate()


def told(said: bytes) -> int:
    """How many packets it says; on a busy host more came meanwhile than were read, and it says that too."""
    found = re.fullmatch(rb"(\d+) packets(; .*)?\n", said)
    assert found, said
    return int(found[1])


def comments(path: Path, *names: str) -> list[list[str]]:
    wanted = [word for name in names for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("|") for line in done.stdout.splitlines()]


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
def test_drops_are_written_as_tshark_reads_them(appliance: Appliance, way: Way, tmp_path: Path) -> None:
    path = tmp_path / "drops.pcapng"
    path.touch(mode=0o644)
    before = time.time()
    _, said = fed(way, ctl(appliance, "capture", "--limit", "slow", "--count", "7", "-w", str(path)))
    assert told(said) == 7
    assert path.stat().st_mode & 0o777 == 0o600
    rows = comments(
        path, "frame.comment", "frame.interface_name", "ip.src", "udp.dstport", "frame.time_epoch"
    )
    assert len(rows) == 7
    for comment, nic, source, port, when in rows:
        assert comment == "verdict=drop reason=limit limit=slow"
        assert (nic, source, port) == ("nic0", "10.9.0.2", str(PORT))
        assert before - 5 < float(when) < time.time() + 5
    entry = appliance.done("GET", "/v1/audit?count=1")["audit"][0]
    assert (entry["action"], entry["target"], entry["user"]) == ("capture", "slow", "root")


def test_output_can_be_piped_and_holds_so_much_of_each_frame(appliance: Appliance, way: Way) -> None:
    wanted = ("--passed", "--reason", "no_limit", "--count", "20", "--snaplen", "20", "-w", "-")
    written, said = fed(way, ctl(appliance, "capture", *wanted))
    assert written.startswith(b"\x0a\x0d\x0d\x0a")
    assert b"verdict=pass reason=no_limit" in written
    assert len(written) < 20 * 120 + 400
    assert told(said) == 20


def test_a_capture_ends_with_its_time(appliance: Appliance, way: Way, tmp_path: Path) -> None:
    path = tmp_path / "none.pcapng"
    _, said = fed(way, ctl(appliance, "capture", "--reason", "bad_tcp", "--seconds", "1s", "-w", str(path)))
    assert said == b"0 packets\n"
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("--limit", "slwo"), 3, b"slow"),
        (("--reason", "boredom"), 2, b"bad_tcp"),
        (("--src", "10.0.0.1/8"), 2, b"10.0.0.0/8"),
    ],
)
def test_a_filter_that_means_nothing_is_told_and_leaves_no_file(
    appliance: Appliance, way: Way, tmp_path: Path, words: tuple[str, ...], status: int, told: bytes
) -> None:
    process = ctl(appliance, "capture", *words, "-w", str(tmp_path / "none.pcapng"))
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert (process.returncode, told in said) == (status, True), said
    assert not (tmp_path / "none.pcapng").exists()


def test_who_is_killed_leaves_nothing_armed(appliance: Appliance, way: Way) -> None:
    def start() -> subprocess.Popen[bytes]:
        return ctl(appliance, "capture", "--seconds", "10m", "-w", "/dev/null")

    running = [start() for _ in range(abi.CAPTURES)]

    def going(one: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        if one.poll() is None:
            return one
        one.communicate()
        return start()

    def all_taken() -> bool:
        # Asking takes a place for a moment, which one of the others may have found missing.
        running[:] = map(going, running)
        return "4 captures are under way" in of_nothing(appliance)

    try:
        until(all_taken)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    until(lambda: of_nothing(appliance) == "0 packets\n")


def of_nothing(appliance: Appliance) -> str:
    """A capture of nothing, that ends at once; what it says."""
    process = ctl(appliance, "capture", "--reason", "bad_tcp", "--seconds", "1ms", "-w", "/dev/null")
    return process.communicate(timeout=DEADLINE_S)[1].decode()


def until(holds: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
