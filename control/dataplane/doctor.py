# SPDX-License-Identifier: Apache-2.0
"""Checks of the host: what it has, what it lacks, and what to do about it."""

import os
import platform
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from valkyrie.control.dataplane import bpf, ethtool, headers, pins
from valkyrie.control.errors import ValkyrieError

OLDEST = (5, 15)
BCC_SECONDS = 20
ENOUGH_BYTES = 256 << 20  # all maps at their default sizes, twice
MIB = 1 << 20
LONGEST_MTU = 3498  # a page less headroom and the kernel's tail: what one native buffer holds
HINDERING = {"rx-lro": "lro", "large-receive-offload": "lro", "rx-gro-hw": "rx-gro-hw"}
STRIPPING = {"rx-vlan-hw-parse": "rxvlan", "rx-vlan-stag-hw-parse": "rx-vlan-stag-hw-parse"}
NATIVE = frozenset(
    [
        "atlantic",
        "bnxt_en",
        "bonding",
        "cpsw-switch",
        "dpaa2-eth",
        "ena",
        "enetc",
        "fec",
        "gve",
        "hinic",
        "hv_netvsc",
        "i40e",
        "iavf",
        "ice",
        "igb",
        "igc",
        "ixgbe",
        "ixgbevf",
        "lan966x-switch",
        "macb",
        "mana",
        "mlx4_en",
        "mlx5_core",
        "mtk_soc_eth",
        "mvneta",
        "mvpp2",
        "netsec",
        "nfp",
        "nicvf",
        "octeontx2-nicpf",
        "rvu_nicpf",
        "qede",
        "sfc",
        "st_gmac",
        "stmmac",
        "tsnep",
        "tun",
        "veth",
        "virtio_net",
        "vmxnet3",
        "xen-netfront",
    ]
)


@dataclass(frozen=True)
class Check:
    """`mend` says what to do; "" when all is well."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def kernel(release: str) -> Check:
    """Is a kernel of this release new enough?"""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and (int(numbers[1]), int(numbers[2])) >= OLDEST:
        return Check("kernel", "ok", release)
    return Check("kernel", "fail", release, f"Linux {OLDEST[0]}.{OLDEST[1]} or newer is needed")


def loading() -> Check:
    """Does the kernel load an XDP program for this process?"""
    passing = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    try:
        os.close(bpf.load_xdp(passing, "doctor"))
    except ValkyrieError as error:
        return Check("bpf", "fail", error.what, error.hint)
    return Check("bpf", "ok", "the kernel loads XDP programs")


def bcc() -> Check:
    """Is there BCC? Asked in another process, so that LLVM is not loaded into this one."""
    code = "import bcc; print(bcc.__version__ if hasattr(bcc, 'BPF') else 'another project: ' + bcc.__file__)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=BCC_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("bcc", "fail", str(error), "apt install python3-bpfcc")
    said = done.stdout.strip()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it does not import"])[-1]
        return Check("bcc", "fail", last, "apt install python3-bpfcc")
    if not said[:1].isdigit():
        return Check("bcc", "fail", said, "pip uninstall bcc; apt install python3-bpfcc")
    return Check("bcc", "ok", said)


def uapi() -> Check:
    """Are the C library's kernel headers there?"""
    try:
        headers.check(Path("/usr/include"))
    except ValkyrieError as error:
        return Check("headers", "fail", error.what, error.hint)
    return Check("headers", "ok", "linux-libc-dev")


def file_system(bpffs: Path) -> Check:
    """Is a BPF file system mounted and writable?"""
    if not pins.is_bpffs(bpffs):
        return Check(
            "bpffs", "warn", f"none at {bpffs}", f"valkyried mounts it, or: mount -t bpf bpf {bpffs}"
        )
    if os.statvfs(bpffs).f_flag & os.ST_RDONLY:
        return Check("bpffs", "fail", f"{bpffs} is read-only", f"mount -o remount,rw {bpffs}")
    if not os.access(bpffs, os.W_OK):
        return Check("bpffs", "fail", f"{bpffs} is not writable for this user", "run it as root")
    return Check("bpffs", "ok", str(bpffs))


def memory(meminfo: str) -> Check:
    """Is there room for the tables? Since Linux 5.11 they count as memory, not as locked memory."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    free = int(found[1]) * 1024 if found else 0
    text = f"{free // MIB} MiB available"
    if free < ENOUGH_BYTES:
        return Check("memory", "warn", text, "choose a smaller table.buckets, or free some memory")
    return Check("memory", "ok", text)


def jit_setting() -> str | None:
    """net.core.bpf_jit_enable; None in a network namespace other than the host's, which does not show it."""
    try:
        return Path("/proc/sys/net/core/bpf_jit_enable").read_text()
    except FileNotFoundError:
        return None


def jit(setting: str | None) -> Check:
    """Is BPF compiled to machine code?"""
    if setting is None:
        return Check("jit", "ok", "to be seen in the host's network namespace alone")
    if setting.strip() in ("1", "2"):
        return Check("jit", "ok", "on")
    return Check(
        "jit", "fail", "off: BPF is interpreted, many times slower", "sysctl net.core.bpf_jit_enable=1"
    )


def nic_driver(nic: str, name: str) -> Check:
    """Is native XDP to be expected of this driver?"""
    if name in NATIVE:
        return Check(f"{nic} driver", "ok", f"{name}: native XDP")
    return Check(
        f"{nic} driver", "warn", f"{name or 'unknown'}: native XDP is not to be expected",
        "generic mode works, slower; a NIC whose driver has native XDP is faster",
    )  # fmt: skip


def nic_queues(nic: str, queues: int, most: int, cpus: int) -> Check:
    """Do the queues keep all CPUs busy?"""
    text = f"{queues} of {most}, for {cpus} CPUs"
    if queues >= cpus or queues >= most:
        return Check(f"{nic} queues", "ok", text)
    return Check(f"{nic} queues", "warn", text, f"ethtool -L {nic} combined {min(cpus, most)}")


def nic_offloads(nic: str, features: dict[str, bool]) -> Check:
    """Do offloads merge packets before XDP sees them?"""
    wrong = sorted({short for long, short in HINDERING.items() if features.get(long)})
    if not wrong:
        return Check(f"{nic} offloads", "ok", "none that merges packets before XDP")
    off = " ".join(f"{short} off" for short in wrong)
    return Check(f"{nic} offloads", "warn", f"{', '.join(wrong)} on", f"ethtool -K {nic} {off}")


def nic_vlan(nic: str, features: dict[str, bool]) -> Check:
    """Do limits that match a VLAN see its tags?"""
    wrong = sorted({short for long, short in STRIPPING.items() if features.get(long)})
    if not wrong:
        return Check(f"{nic} vlan", "ok", "tags are left in the frames, as limits on a VLAN need")
    off = " ".join(f"{short} off" for short in wrong)
    return Check(
        f"{nic} vlan", "warn", "it may strip tags before XDP sees them, and some limit matches a VLAN",
        f"ethtool -K {nic} {off}",
    )  # fmt: skip


def nic_mtu(nic: str, mtu: int) -> Check:
    """Does a packet fit one native buffer?"""
    if mtu <= LONGEST_MTU:
        return Check(f"{nic} mtu", "ok", str(mtu))
    return Check(
        f"{nic} mtu", "warn", f"{mtu}: most drivers refuse native XDP above about {LONGEST_MTU}",
        f"ip link set {nic} mtu 1500, or attach with --mode generic",
    )  # fmt: skip


def nic_checks(nic: str, *, vlans: bool) -> Iterator[Check]:
    """All checks of one NIC."""
    features = ethtool.features(nic)
    yield nic_driver(nic, ethtool.driver(nic))
    yield nic_queues(nic, *ethtool.queues(nic), os.cpu_count() or 1)
    yield nic_offloads(nic, features)
    if vlans:
        yield nic_vlan(nic, features)
    yield nic_mtu(nic, ethtool.mtu(nic))


def examine(bpffs: Path = Path("/sys/fs/bpf"), *, vlans: bool = False) -> list[Check]:
    """Every check of this host, and of each NIC of the network namespace but the loopback device. `vlans`:
    some limit matches a VLAN.
    """
    host: list[Callable[[], Check]] = [
        lambda: kernel(platform.release()),
        loading,
        bcc,
        uapi,
        lambda: file_system(bpffs),
        lambda: memory(Path("/proc/meminfo").read_text()),
        lambda: jit(jit_setting()),
    ]
    checks = [check() for check in host]
    for nic in sorted(name for _, name in socket.if_nameindex() if name != "lo"):
        try:
            checks += nic_checks(nic, vlans=vlans)
        except OSError as error:  # it has gone meanwhile
            checks.append(Check(nic, "warn", str(error.strerror), "see `ip link`"))
    return checks
