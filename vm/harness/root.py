# SPDX-License-Identifier: Apache-2.0
"""A minimal root of a release, and commands inside it, as if it were a machine of its own.

Commands run in mount and process namespaces of their own, with a BPF file system of their own, so that no
mounts, pins or processes are left when they end; the kernel and its devices are the host's, and so is the
network, unless they are to have none. They end when this process does, however it ends.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# How this host reaches its package registries.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = ("/etc/pip.conf", "/etc/resolv.conf")
INSIDE = "/root/host.crt"

FETCH_S = 60  # apt gives up on a server that says nothing for so long

# The root is moved over the old one rather than only changed to: inside, a command may do what a chroot
# forbids (make a user namespace, pivot_root). Without `mount`, which a minimal root lacks, it cannot be undone.
ENTER = """
set -e
mount --bind "$ROOT" "$ROOT"
cd "$ROOT"
mount -t proc proc proc
for part in sys dev; do mount --rbind "/$part" "$part"; done
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs tmpfs run
[ -z "$CHECKOUT" ] || mount --bind -o ro "$CHECKOUT" mnt
mount --move . /
exec chroot . /bin/bash -c "$1"
"""


def apart(*, network: bool = True) -> list[str]:
    """What precedes a command that is to run in namespaces of its own and to end with this process."""
    own = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    return ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *own, *([] if network else ["--net"])]


def make_command(release: str, path: Path, packages: Sequence[str] = (), keyring: Path | None = None) -> list[str]:
    """The command that fills the empty folder at `path`. `keyring`: who signs, if not the usual ones."""
    return [
        *apart(),
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        "--components=main,universe" if release == "noble" else "--components=main",
        *([f"--include={','.join(packages)}"] if packages else []),
        *([f"--keyring={keyring}"] if keyring else []),
        f"--aptopt=Acquire::http::Timeout \"{FETCH_S}\"",
        release,
        str(path),
    ]


def environment(path: Path, checkout: Path | None = None) -> dict[str, str]:
    """Of a command inside: nothing of this process's but how pip reaches its registry."""
    return {
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        **({"PIP_CERT": INSIDE} if CERTIFICATES.exists() else {}),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "ROOT": str(path),
        "CHECKOUT": str(checkout or ""),
    }


def copy_settings(path: Path) -> None:
    """Put into the root how this host reaches its package registries."""
    for file in filter(os.path.exists, SETTINGS):
        shutil.copyfile(file, path / file.lstrip("/"))
    if CERTIFICATES.exists():
        shutil.copyfile(CERTIFICATES, path / INSIDE.lstrip("/"))


def start(
    path: Path,
    script: str,
    *,
    network: bool = True,
    checkout: Path | None = None,
    output: int | IO[str] = subprocess.PIPE,
    errors: int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a shell script inside; `checkout` is at /mnt then, read-only."""
    return subprocess.Popen(
        [*apart(network=network), "bash", "-c", ENTER, "enter", script],
        env=environment(path, checkout),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        text=True,
    )


def remove(path: Path) -> None:
    """Remove a root, and nothing that might be mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=False)
