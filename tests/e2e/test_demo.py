# SPDX-License-Identifier: Apache-2.0
"""`./appliance demo`: everything within one per cent, and nothing left behind however it ends."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from valkyrie.control.lab.report import Row
from valkyrie.control.lab.scenario import FLOOD, STREAMS

INTERRUPTED = 130
START_S, END_S = 60.0, 20.0


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo makes its directory; short, because sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "valkyrie.control.lab.demo", *arguments],
        env={**os.environ, "TMPDIR": str(place), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Until the process prints the text."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_S
    said = ""
    while text not in said and time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 1)[0]:
            said += os.read(process.stdout.fileno(), 65536).decode()
    assert text in said


def processes_of(place: Path) -> list[int]:
    """Processes that have the place in their environment, the demo and all that it started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(place).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def assert_nothing_is_left(place: Path) -> None:
    deadline = time.monotonic() + END_S
    while processes_of(place) and time.monotonic() < deadline:
        select.select([], [], [], 0.05)
    assert processes_of(place) == []
    assert str(place) not in Path("/proc/self/mounts").read_text()


def test_what_passes_is_what_must_pass_and_nothing_is_left(place: Path) -> None:
    process = start(place, "--seconds", "8")
    said, complaint = process.communicate(timeout=90)
    assert process.returncode == 0, said + complaint
    for stream in (*STREAMS, FLOOD):
        assert re.search(rf"│ {stream.name} +│.*│ ok +│", said), f"{stream.name} in {said}"
    assert_nothing_is_left(place)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_in_the_middle_it_leaves_nothing(place: Path, number: signal.Signals) -> None:
    process = start(place)
    wait_for(process, "All at once")
    process.send_signal(number)
    process.communicate(timeout=END_S)
    assert process.returncode == INTERRUPTED
    assert_nothing_is_left(place)
    assert list(place.iterdir()) == []


def test_killed_it_takes_the_daemon_and_the_namespaces_along(place: Path) -> None:
    process = start(place)
    wait_for(process, "All at once")
    process.kill()
    process.communicate()
    assert_nothing_is_left(place)
    for left in place.iterdir():  # the mount point, which only an orderly end can remove
        left.rmdir()


@pytest.mark.parametrize(
    ("row", "ok"),
    [
        (Row("exact", 1000, 100, 900, 100), True),
        (Row("within one per cent", 100_000, 9_901, 90_099, 10_000), True),
        (Row("too few", 100_000, 9_899, 90_101, 10_000), False),
        (Row("too many", 100_000, 10_101, 89_899, 10_000), False),
        (Row("neither passed nor dropped", 1000, 100, 880, 100), False),
        (Row("nothing sent", 0, 0, 0, 0), False),
        (Row("what no limit counts", 1000, 1000, None, 1000), True),
    ],
    ids=lambda value: value.name if isinstance(value, Row) else "",
)
def test_a_row_is_right_within_one_per_cent_alone(row: Row, ok: bool) -> None:
    assert row.ok is ok
