# SPDX-License-Identifier: Apache-2.0
"""A minimal root of this host's release, without Valkyrie or anything that it needs, to install into.

Commands run in mount and process namespaces of their own, with a BPF file system of its own, so that
no mounts, pins or processes are left when they end; the kernel's devices and the host's network are there.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PARTS = ("appliance", "pyproject.toml", "LICENSE", ".src", "bpf", "control", "adapters")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = ("/etc/pip.conf", "/etc/resolv.conf")  # how this host reaches its package registries

ENTER = """
set -e
mount -t proc proc "$ROOT/proc"
for part in sys dev; do mount --rbind "/$part" "$ROOT/$part"; done
mount -t bpf bpf "$ROOT/sys/fs/bpf"
mount -t tmpfs tmpfs "$ROOT/run"
exec chroot "$ROOT" /bin/bash -c "$1"
"""


class CleanRoot:
    """The root at `path`, made by mmdebstrap, with the checkout in /src."""

    def __init__(self, path: Path) -> None:
        self.path = path
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", release, str(path)], check=True)
        (path / "src").mkdir()
        for part in PARTS:
            source = CHECKOUT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, path / "src" / part, symlinks=True, ignore=ignored)
            else:
                shutil.copy2(source, path / "src" / part)
        for file in filter(os.path.exists, SETTINGS):
            shutil.copyfile(file, path / file.lstrip("/"))
        if CERTIFICATES.exists():
            shutil.copyfile(CERTIFICATES, path / "root" / "host.crt")

    def run(self, script: str, *, network: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside, in /src; without network it is in a network namespace of its own."""
        certificate = {"PIP_CERT": "/root/host.crt"} if CERTIFICATES.exists() else {}
        environment = {
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
            **certificate,
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "ROOT": str(self.path),
        }
        apart = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            *([] if network else ["--net"]),
        ]
        command = [*apart, "bash", "-c", ENTER, "enter", f"cd /src\n{script}"]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
