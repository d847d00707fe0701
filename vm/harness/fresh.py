# SPDX-License-Identifier: Apache-2.0
"""What vm/fresh-root does: a minimal root of a release, the checkout cloned into it, a command."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from harness import child, stop
from harness.errors import VmError
from harness.provision import CHECKOUT
from harness.root import Root, lend_settings, making, remove

COMPONENTS = {"bookworm": ("main",), "trixie": ("main",), "noble": ("main", "universe")}
UBUNTU = {"noble"}
UBUNTU_KEYS = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
COMMAND = "./appliance setup && ./appliance test"
PREFIX = "valkyrie-root-"
FOLDER = Path("/var/tmp")  # noqa: S108 what is made in it has a name of its own; /tmp may be memory

NEEDED_BYTES = 4 << 30  # after `setup` a root has 2 GiB, and the tests write too
MAKING_S = 900.0
MINUTES = 120

# Who owns the checkout does not matter here: it is read-only, and nothing in it is run by git.
CLONE = """
set -e
HOME=$(mktemp -d)
git config --global safe.directory '*'
git clone --quiet --no-hardlinks /mnt /src
rm -r "$HOME"
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; what follows the release is one shell command, its words joined as ssh does."""
    parser = argparse.ArgumentParser(
        prog="vm/fresh-root",
        description="Clone this checkout's last commit into a minimal root of a release, where nothing is "
        "installed but git, run a command there, and remove it.",
        epilog=f"Options come before RELEASE. COMMAND is a shell's; without one: {COMMAND}",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep what the command prints there as well")
    parser.add_argument("--folder", type=Path, default=FOLDER, metavar="DIR", help="make the root there")
    parser.add_argument("--offline", action="store_true", help="no network for the command")
    parser.add_argument(
        "--minutes", type=int, default=MINUTES, metavar="N", help=f"give up then (default {MINUTES})"
    )
    parser.add_argument("release", choices=sorted(COMPONENTS), metavar="RELEASE", help=", ".join(COMPONENTS))
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    told = parser.parse_args(argv)
    if told.minutes < 1:
        parser.error("--minutes: at least 1")
    told.command = " ".join(told.command) or COMMAND
    return told


def check(release: str, folder: Path) -> None:
    """Complain at once about what would fail late."""
    if os.getuid() != 0:
        raise VmError("fresh-root needs root: it makes namespaces.", hint="Run: sudo vm/fresh-root ...")
    if shutil.which("mmdebstrap") is None:
        raise VmError("mmdebstrap is not installed.", hint="Run: sudo apt-get install mmdebstrap")
    if release in UBUNTU and not UBUNTU_KEYS.exists():
        why = f"Ubuntu's packages are signed by keys that are not in {UBUNTU_KEYS}."
        raise VmError(
            f"cannot make a root of {release}",
            why,
            "Install ubuntu-keyring, or copy that file from an Ubuntu.",
        )
    if not (CHECKOUT / ".git").is_dir():
        raise VmError(
            f"{CHECKOUT} is not a clone of a git repository", hint="Clone the project, and run it from there."
        )
    if not folder.is_dir():
        raise VmError(f"there is no folder {folder}", hint="Name another one: --folder DIR")
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        why = f"{free >> 20} MiB are free, {NEEDED_BYTES >> 20} MiB are needed."
        raise VmError(
            f"no space for a root in {folder}", why, "Make room there, or name another: --folder DIR"
        )


def make(release: str, path: Path) -> Root:
    """A root with git and a clone of the checkout in /src."""
    child.run(
        making(release, path, ["git"], COMPONENTS[release]),
        what=f"making a root of {release}",
        timeout=MAKING_S,
        hint="It needs the release's package mirror: without network, connect this host and run again.",
    )
    lend_settings(path)
    done = Root(path, CHECKOUT).run(CLONE, network=False)
    if done.returncode != 0:
        raise VmError(f"cannot clone {CHECKOUT}", child.tail(done.stderr))
    return Root(path)


def follow(process: subprocess.Popen[str], copies: Sequence[IO[str]]) -> int:
    """Copy what it prints until it ends; its exit code, as a shell tells it."""
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                for copy in copies:
                    copy.write(line)
                    copy.flush()
        except BaseException:
            process.kill()
            raise
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def remove_stale(folder: Path) -> None:
    """Remove roots whose runs were killed; a root's name has its run's process id."""
    for left in folder.glob(f"{PREFIX}*-*"):
        with suppress(ValueError):
            if not Path(f"/proc/{int(left.name.split('-')[2])}").exists():
                remove(left)


def run(argv: Sequence[str]) -> int:
    """Everything; the exit code is the command's."""
    told = parse(argv)
    check(told.release, told.folder)
    stop.arm(told.minutes * 60)
    remove_stale(told.folder)
    place = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=told.folder))
    try:
        with open(told.log or os.devnull, "w", encoding="utf-8") as log:  # noqa: PTH123 of either
            say(f"making a root of {told.release}")
            root = make(told.release, place / "root")
            say(f"{told.release}: {told.command}")
            process = root.start(
                f"cd /src\n{told.command}",
                network=not told.offline,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            status = follow(process, (sys.stdout, log))
            say(f"{told.release}: exit code {status}")
            return status
    except OSError as error:
        raise VmError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    finally:
        remove(place)


def say(text: str) -> None:
    sys.stderr.write(f"fresh-root: {text}\n")


def main() -> int:
    try:
        return run(sys.argv[1:])
    except (VmError, stop.Late) as error:
        say(str(error))
        return 1
    except stop.Stopped:
        say("stopped; nothing is left")
        return 130
