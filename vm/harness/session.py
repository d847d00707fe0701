# SPDX-License-Identifier: Apache-2.0
"""One run: image, boot, provisioning, tests, what is kept of it. What it starts ends with it."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness import accel, child, covered, image, lab, network, provision, report, stop, traces
from harness.errors import VmError
from harness.image import Image
from harness.qemu import Machine, Qemu
from harness.recipe import Recipe, requirements

PYTHON = provision.CHECKOUT / ".venv/bin/python"
SOURCE = "/vagrant"
END_TESTS_S = 30.0
WATCH_S = 1.0


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for. `folder` is the run's own, for sockets and keys."""

    release: str
    results: Path
    folder: Path
    quick: bool
    coverage: bool
    tests: bool
    keep: bool
    pytest: tuple[str, ...]


def ssh_words(found: Image, folder: Path) -> list[str]:
    """How ssh is called inside the run's namespace; one connection carries all commands."""
    (folder / "known_hosts").write_text(f"127.0.0.1 {found.known_host}")
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityFile": str(found.key),
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "ControlMaster": "auto",
        "ControlPath": str(folder / "ssh"),
        "ControlPersist": "600",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
        "LogLevel": "ERROR",
    }
    told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "none", *told, "root@127.0.0.1"]


def write_lab(
    path: Path, machine: Machine, namespace: network.Namespace, ssh: list[str], results: Path
) -> lab.Lab:
    """Tell the lab in a file, for the tests and for whoever works in it."""
    told = {
        "release": machine.image.release,
        "accel": machine.accel,
        "source": SOURCE,
        "results": str(results),
        "appliance": {"ssh": [*namespace.argv(), *ssh]},
        "client": {"netns": namespace.name},
        "links": network.told(),
        "power": {"qmp": str(machine.control), "console": str(machine.console)},
    }
    path.write_text(json.dumps(told, indent=2) + "\n")
    return lab.read(path)


def session(wishes: Wishes) -> int:
    """The run; its exit code."""
    timings = report.Timings(wishes.results / "timings.json")
    recipe = Recipe(wishes.release, requirements((provision.CHECKOUT / "pyproject.toml").read_text()))
    with timings.step("image"):
        found = image.cached(recipe, report.say)
    machine = Machine(found, "tcg", wishes.results / "console.log", wishes.folder / "qmp")
    machine = replace(machine, accel=accel.choose(machine, wishes.folder, network.RUNS / "accel", report.say))
    with network.Namespace(wishes.folder) as namespace:
        log = wishes.results / "qemu.log"
        with Qemu(machine, namespace.argv(), log) as emulator:
            file = wishes.results / "lab.json"
            place = write_lab(file, machine, namespace, ssh_words(found, wishes.folder), wishes.results)
            try:
                with timings.step("boot"):
                    boot(place, emulator)
                status = work(wishes, place, emulator, timings)
                if wishes.keep:
                    wait(place, file, emulator)
                return status
            finally:
                with suppress(Exception):  # what went wrong before is what must be told
                    report.keep_journal(place, wishes.results)
                place.hang_up()
                report.say(f"results are in {wishes.results}")


def work(wishes: Wishes, place: lab.Lab, emulator: Qemu, timings: report.Timings) -> int:
    """Provision and test. In a machine that is kept somebody can look at what went wrong."""
    try:
        with timings.step("copy"):
            provision.copy(place)
        if not wishes.quick:
            provision.hide_ready(place)
            with timings.step("look"):
                seen = traces.look(place.appliance, place.source)
                (wishes.results / traces.BEFORE).write_text("".join(f"{line}\n" for line in seen))
        with timings.step("install"):
            provision.install(place)
        if wishes.coverage:
            covered.begin(place)
        if not wishes.tests:
            return 0
        with timings.step("tests"):
            status = tests(wishes, wishes.results / "lab.json", emulator)
        if wishes.coverage:
            with timings.step("coverage"):
                covered.collect(place, wishes.results)
        return status
    except VmError as error:
        if not wishes.keep:
            raise
        sys.stderr.write(f"vm: {error}\n")
        return 1


def boot(place: lab.Lab, emulator: Qemu) -> None:
    """Wait for the guest's ssh; complain at once if QEMU ends."""
    try:
        place.wait_ssh()
    finally:
        emulator.check()


def tests(wishes: Wishes, file: Path, emulator: Qemu) -> int:
    """Run tests/vm against the lab; ends early if the machine does."""
    options = ["--lab", str(file), f"--junitxml={wishes.results / 'junit.xml'}"]
    if wishes.quick:
        options += ["-m", "quick"]
    if wishes.coverage:
        options += ["--ignore=tests/vm/test_uninstall.py"]  # what measures would be left
    argv = [str(PYTHON), "-m", "pytest", "tests/vm", *options, *wishes.pytest]
    process = subprocess.Popen(
        [*child.WITH_PARENT, *argv],
        cwd=provision.CHECKOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the harness, which ends it in order
    )
    try:
        while True:
            try:
                return process.wait(WATCH_S)
            except subprocess.TimeoutExpired:
                emulator.check()
    finally:
        child.end(process, END_TESTS_S, signal.SIGINT)


def wait(place: lab.Lab, file: Path, emulator: Qemu) -> None:
    """Say how to come in, and stay until somebody ends it."""
    stop.no_deadline()
    sys.stdout.write(
        "\nThe machine runs until Ctrl-C (or SIGTERM to this process).\n"
        f"  appliance:  sudo {shlex.join(place.appliance.prefix)}\n"
        f"  client:     sudo {shlex.join(place.client.prefix)} bash\n"
        f"  tests:      sudo {PYTHON} -m pytest tests/vm --lab {file}\n"
    )
    sys.stdout.flush()
    while True:
        emulator.check()
        signal.sigtimedwait((), WATCH_S)
