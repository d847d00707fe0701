# SPDX-License-Identifier: Apache-2.0
"""A minimal root of a release, and scripts inside it, as if it were a machine of its own.

Scripts run in mount and process namespaces of their own, with a BPF file system of their own, so that no
mounts, pins or processes are left when they end; the kernel and its devices are the host's, and so is the
network, unless there is to be none. They end when the process that started them does, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.child import APART, WITH_PARENT

# How this host reaches its package registries.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = ("/etc/pip.conf", "/etc/resolv.conf")
COPIED = "/root/host.crt"

SERVER_S = 60  # apt gives up on a server that is silent for so long

# The root is moved over the host's rather than only changed to: inside, a command may do what is forbidden
# in a chroot (make a user namespace, pivot_root). A minimal root has no `mount`, so the host's does it all.
# The shell stays as the first process, which orphans are left to.
ENTER = """
set -e
mount --bind "$ROOT" "$ROOT"
cd "$ROOT"
mount -t proc proc proc
for part in sys dev; do mount --rbind "/$part" "$part"; done
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs tmpfs run
[ -z "$LENT" ] || { mount --bind "$LENT" mnt; mount -o remount,bind,ro mnt; }
mount --move . /
chroot . /usr/bin/env -u ROOT -u LENT /bin/bash -c "$1" || exit $?
"""


@dataclass(frozen=True)
class Root:
    """The root at `path`. What is `lent` to it is at /mnt while a script runs, read-only."""

    path: Path
    lent: Path | None = None

    def start(self, script: str, *, network: bool = True, **streams: Any) -> subprocess.Popen[str]:
        """Start a shell script inside; `streams` as for Popen."""
        alone = [*WITH_PARENT, *APART, *([] if network else ["--net"])]
        return subprocess.Popen(
            [*alone, "bash", "-c", ENTER, "enter", script],
            env={
                **environment(os.environ),
                "ROOT": str(self.path),
                "LENT": str(self.lent or ""),
            },
            text=True,
            errors="replace",
            **streams,
        )

    def run(
        self, script: str, *, network: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside; its exit code is the caller's to judge."""
        process = self.start(script, network=network, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(script, process.returncode, output, errors)


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Of a script inside: nothing of this process's but how pip reaches its registry."""
    return {
        **{name: value for name, value in ours.items() if name.startswith("PIP_") and value[:1] != "/"},
        **({"PIP_CERT": COPIED} if CERTIFICATES.exists() else {}),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
    }


def making(
    release: str, path: Path, packages: Sequence[str] = (), components: Sequence[str] = ("main",)
) -> list[str]:
    """The command that makes a root at `path`, an empty folder or none."""
    return [
        *APART,
        *("mmdebstrap", "--quiet", "--variant=apt", f"--components={','.join(components)}"),
        *([f"--include={','.join(packages)}"] if packages else []),
        f'--aptopt=Acquire::http::Timeout "{SERVER_S}"',
        release,
        str(path),
    ]


def lend_settings(path: Path) -> None:
    """Put into the root how this host reaches its package registries."""
    for file in filter(os.path.exists, SETTINGS):
        shutil.copyfile(file, path / file.lstrip("/"))
    if CERTIFICATES.exists():
        shutil.copyfile(CERTIFICATES, path / COPIED.lstrip("/"))


def remove(path: Path) -> None:
    """Remove a root, and nothing that is mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=False)
