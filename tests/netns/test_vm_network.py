# SPDX-License-Identifier: Apache-2.0
"""The namespace of a virtual machine's run: the client's NICs in it, and nothing left, however it ended."""

import subprocess
import sys
from pathlib import Path

from harness import child, network

HARNESS = Path(child.__file__).resolve().parent.parent
RUN = """
import sys
from pathlib import Path
from harness import network
with network.run_folder(print, Path(sys.argv[1])) as mine, network.Namespace(mine) as made:
    print(made.name, flush=True)
    sys.stdin.read()
"""


def started(runs: Path) -> tuple[subprocess.Popen[str], str]:
    """A run that has its namespace, and the namespace's name."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(runs)],
        cwd=HARNESS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def exists(name: str) -> bool:
    return (network.NAMESPACES / name).exists()


def test_a_run_has_its_nics_and_leaves_nothing(tmp_path: Path) -> None:
    process, name = started(tmp_path)
    with process:
        shown = subprocess.run(
            ["ip", "-netns", name, "-brief", "address"], capture_output=True, text=True, check=True
        ).stdout
        process.communicate("", timeout=20)
    for wire in network.LINKS.values():
        (line,) = [line for line in shown.splitlines() if line.startswith(wire.client_nic)]
        assert f"{wire.client4}/24" in line
        assert f"{wire.client6}/64" in line
    assert process.returncode == 0
    assert not exists(name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


def test_what_a_killed_run_left_goes_with_the_next_and_a_living_one_stays(tmp_path: Path) -> None:
    killed, left = started(tmp_path)
    living, kept = started(tmp_path)
    with killed, living:
        killed.kill()
        killed.wait(20)
        assert exists(left)
        assert network.remove_stale(tmp_path) == [left]
        assert not exists(left)
        assert exists(kept)
        living.communicate("", timeout=20)
    assert not exists(kept)
