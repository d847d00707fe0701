# SPDX-License-Identifier: Apache-2.0
"""The lab's file, commands of its machines, the command line, and how a run ends before its time."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import child, lab, main, network, provision
from harness.errors import VmError
from harness.host import Host

HARNESS = Path(child.__file__).resolve().parent.parent


def told(folder: Path, **other: Any) -> Path:
    """A lab's file."""
    path = folder / "lab.json"
    whole = {
        "release": "bookworm",
        "accel": "tcg",
        "source": "/vagrant",
        "results": str(folder),
        "appliance": {"ssh": ["ssh", "host", "sudo", "--"]},
        "client": {"netns": "vk-vm-1"},
        "links": network.told(),
        "power": {"qmp": "/run/x/qmp", "console": str(folder / "console.log")},
    }
    path.write_text(json.dumps({**whole, **other}))
    return path


def test_a_lab_is_what_its_file_tells(tmp_path: Path) -> None:
    found = lab.read(told(tmp_path))
    assert found.links == network.LINKS
    assert found.appliance.argv(["echo", "a b"]) == ["ssh", "host", "sudo", "--", "echo 'a b'"]
    assert found.client.argv(["echo", "a b"]) == ["ip", "netns", "exec", "vk-vm-1", "echo", "a b"]
    assert found.control == Path("/run/x/qmp")


def test_a_lab_whose_power_is_not_ours_cannot_be_cut(tmp_path: Path) -> None:
    assert lab.read(told(tmp_path, power=None)).control is None


@pytest.mark.parametrize("wrong", ["", "[]", "{}", '{"release": 1}', "\0"])
def test_a_file_that_tells_of_no_lab_is_refused_by_name(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "lab.json"
    path.write_text(wrong)
    with pytest.raises(VmError, match="does not tell of a lab"):
        lab.read(path)


def test_a_guest_that_hangs_is_told_with_the_console_s_last_lines(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text("Started something\nWaiting for the disk\n")
    found = lab.read(told(tmp_path, appliance={"ssh": ["false"]}))
    with pytest.raises(VmError) as error:
        found.wait_ssh(0.5)
    assert "does not answer ssh within" in str(error.value)
    assert "Waiting for the disk" in str(error.value)
    assert "console.log" in str(error.value)


def test_a_kernel_that_gives_up_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text("Kernel panic - not syncing\n")
    found = lab.read(told(tmp_path, appliance={"ssh": ["false"]}))
    with pytest.raises(VmError, match="given up"):
        found.wait_ssh(60.0)


def test_a_command_that_does_not_end_is_given_up_and_named() -> None:
    host = Host("appliance", ("env",))
    with pytest.raises(VmError, match=r"appliance: no end of `sleep 60` after 0 s"):
        host.run("sleep", "60", timeout=0.2)


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(VmError) as error:
        Host("client", ("env",)).told("sh", "-c", "echo because >&2; exit 3")
    assert "exit 3" in str(error.value)
    assert "because" in str(error.value)


def test_files_go_there_and_back_as_they_are(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(range(256)))
    far = Host("appliance", ("sh", "-c"), shell=True)
    far.put(local, str(tmp_path / "far file"))
    far.get(str(tmp_path / "far file"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == bytes(range(256))


def test_the_checkout_comes_with_its_links_and_without_what_tools_leave() -> None:
    found = provision.checkout_files(provision.CHECKOUT)
    assert {"appliance", "pyproject.toml", ".src/valkyrie/control", "vm/run"} <= set(found)
    assert not any("__pycache__" in name or name.startswith((".git/", ".venv/")) for name in found)


def test_without_git_the_checkout_is_the_same_but_for_what_tools_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control/__pycache__").mkdir(parents=True)
    (tmp_path / "control/a.py").touch()
    (tmp_path / "control/__pycache__/a.pyc").touch()
    (tmp_path / ".src").mkdir()
    (tmp_path / ".src/control").symlink_to("../control")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert provision.checkout_files(tmp_path) == [".src/control", "control/a.py"]


def test_arguments_that_are_not_ours_are_pytest_s() -> None:
    ours, rest = main.parse(["--quick", "-x", "--release", "trixie", "-k", "flood"])
    assert (ours.quick, ours.release, rest) == (True, "trixie", ["-x", "-k", "flood"])


def test_a_folder_with_other_things_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear")
    with pytest.raises(VmError, match="holds other things"):
        main.private_folder(tmp_path)
    assert (tmp_path / "mine").read_text() == "dear"


def test_results_of_the_last_run_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "timings.json").write_text("{}")
    (tmp_path / "journal.log").write_text("old")
    assert list(main.private_folder(tmp_path).iterdir()) == []


ENDING = """
import signal, subprocess, sys
from harness import child, stop
stop.arm({seconds})
process = subprocess.Popen([*child.WITH_PARENT, "sleep", "60"], text=True)
try:
    print(process.pid, flush=True)
    process.wait()
finally:
    child.end(process, 5.0)
    print("ended in order", flush=True)
"""


HANGING = """
import pathlib, sys
from harness import lab, stop
stop.arm(1)
lab.read(pathlib.Path(sys.argv[1])).wait_ssh(15)
"""


def ending(seconds: int) -> subprocess.Popen[str]:
    """A run that has started something."""
    return subprocess.Popen(
        [sys.executable, "-c", ENDING.format(seconds=seconds)],
        cwd=HARNESS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_stopped_ends_what_it_started(number: signal.Signals) -> None:
    with ending(60) as process:
        assert process.stdout is not None
        started = int(process.stdout.readline())
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert "ended in order" in output
    assert "Stopped" in errors
    assert gone(started)


def test_a_run_that_lasts_too_long_ends_in_order_and_says_so() -> None:
    with ending(1) as process:
        output, errors = process.communicate(timeout=20)
    assert "ended in order" in output
    assert "has not ended within 1 s" in errors


def test_a_guest_that_hangs_is_waited_for_no_longer_than_the_run_may_last(tmp_path: Path) -> None:
    file = told(tmp_path, appliance={"ssh": ["sh", "-c", "sleep 60"]})
    argv = [sys.executable, "-c", HANGING, str(file)]
    done = subprocess.run(argv, cwd=HARNESS, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "has not ended within 1 s" in done.stderr


def test_what_a_killed_run_started_dies_with_it() -> None:
    with ending(60) as process:
        assert process.stdout is not None
        started = int(process.stdout.readline())
        descriptor = os.pidfd_open(started)
        comm = Path(f"/proc/{started}/comm")
        while comm.read_text().strip() != "sleep":  # setpriv has yet to ask the kernel for it
            time.sleep(0.01)
        process.kill()
        process.wait(20)
        ended, _, _ = select.select([descriptor], [], [], 20)
        os.close(descriptor)
    assert ended
