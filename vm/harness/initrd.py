# SPDX-License-Identifier: Apache-2.0
"""A small first root: static busybox and the modules that a virtio disk needs."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path

MODULES = ("virtio_pci", "virtio_blk", "ext4", "virtio_rng")
PROBED = "valkyrie: a guest has booted"
PROBE_WORD = "valkyrie.probe"
DIRECTORY, FILE, DEVICE = 0o040755, 0o100755, 0o020600

INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /root
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
case " $($b cat /proc/cmdline) " in
    *" {PROBE_WORD} "*) echo "{PROBED}" >/dev/ttyS0; $b poweroff -f ;;
esac
while read -r module; do $b insmod "/modules/$module"; done </modules/order
tries=0
until [ -b /dev/vda ] || [ $tries -ge 300 ]; do $b sleep 0.1; tries=$((tries + 1)); done
$b mount -t ext4 -o rw /dev/vda /root || {{ echo "valkyrie: the disk cannot be mounted"; $b poweroff -f; }}
for part in dev sys proc; do $b mount --move "/$part" "/root/$part"; done
exec $b switch_root /root /sbin/init
"""


def load_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules and what they need, each after its needs. Built-in ones are not listed."""
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        by_name[Path(path).name.split(".")[0].replace("-", "_")] = path
    order: list[str] = []

    def add(path: str) -> None:
        for need in needs[path]:
            if need not in order:
                add(need)
        if path not in order:
            order.append(path)

    for name in wanted:
        if name in by_name:
            add(by_name[name])
    return order


def cpio(entries: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An archive of the kernel's "newc" form: path -> (mode, content)."""
    out = bytearray()
    listed = [*entries.items(), ("TRAILER!!!", (0, b""))]
    for number, (path, (mode, content)) in enumerate(listed, 1):
        name = path.encode() + b"\0"
        device = (5, 1) if mode == DEVICE else (0, 0)  # the only one: /dev/console
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def plain_module(path: Path) -> bytes:
    """A module as busybox can load it: Debian 13 compresses them."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def build(modules: Path, busybox: bytes) -> bytes:
    """The initrd for the kernel whose modules are in the folder `modules`."""
    order = load_order((modules / "modules.dep").read_text(), MODULES)
    names = [Path(path).name.removesuffix(".xz") for path in order]
    entries: dict[str, tuple[int, bytes]] = {
        "bin": (DIRECTORY, b""),
        "dev": (DIRECTORY, b""),
        "dev/console": (DEVICE, b""),
        "modules": (DIRECTORY, b""),
        "bin/busybox": (FILE, busybox),
        "init": (FILE, INIT.encode()),
        "modules/order": (FILE, "".join(f"{name}\n" for name in names).encode()),
    }
    for path, name in zip(order, names, strict=True):
        entries[f"modules/{name}"] = (FILE, plain_module(modules / path))
    return gzip.compress(cpio(entries), compresslevel=1, mtime=0)
