# SPDX-License-Identifier: Apache-2.0
"""Boot a root with its own systemd, in namespaces of its own: process, mount, network, control groups.

The kernel is the host's; what is pinned and attached goes with each boot, as with a machine's.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

START_S = 120.0

# A NIC is there before systemd starts, as on a machine.
BOOT = """
set -e
mount --bind "$ROOT" "$ROOT"
cd "$ROOT"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount --rbind /dev dev
mount -t tmpfs tmpfs run
ip link add eth0 type veth peer wire
pivot_root . mnt
umount -l /mnt
exec env -i container=lab /lib/systemd/systemd --system --show-status=0 --unit=multi-user.target
"""
APART = (
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--net",
    "--cgroup",
    "--uts",
    "--ipc",
    "--fork",
    "--kill-child",
)


class Booted:
    """The root at `path`, running; a context manager whose end is that of a machine without power."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            ["unshare", *APART, "bash", "-c", BOOT],
            env={**os.environ, "ROOT": str(path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._init() and self.run("systemctl", "is-system-running").stdout.strip() in (
                "running",
                "degraded",
            ):
                return
            time.sleep(0.5)
        raise TimeoutError(f"systemd is not up after {START_S:.0f} s")

    def _init(self) -> str:
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, like a user who has logged in as root."""
        enter = ["nsenter", "-t", self._init(), "-m", "-p", "-n", "-u", "-i", "-C", "--"]
        environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return subprocess.run([*enter, *argv], env=environment, capture_output=True, text=True, check=False)

    def told(self, *argv: str) -> str:
        """What a command that must succeed prints."""
        done = self.run(*argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        """Cut the power."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
