#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Make a Vagrant box for libvirt of the image that vm/run boots: the same disk, kernel and keys.

    sudo vm/make_box.py [--release bookworm|trixie] [--folder FOLDER]

Beside the box lie its kernel and initrd: it has no bootloader, and QEMU reads these two as a user of its own.
Nothing is mounted: files of the disk are exchanged by debugfs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import child, image, recipe
from harness.errors import VmError

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = Path("/var/lib/valkyrie-box")
CONVERT_S = 300.0
DISK_GB = image.DISK_BYTES >> 30
METADATA = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GB}

# Settings of Vagrant's that go with the box wherever it goes.
VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.ssh.username = "root"
  config.ssh.insert_key = false
  config.ssh.private_key_path = File.expand_path("key", __dir__)
end
"""
# libvirt's dnsmasq gives the addresses of the first network, Vagrant writes those of the others.
DHCP = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n"
# Both machines' names: sudo looks up its own, and without an answer waits for it each time.
HOSTS = "127.0.0.1 localhost appliance client\n::1 localhost\n"
NETWORKS = "/etc/systemd/network"
FILES = {f"{NETWORKS}/10-eth0.network": DHCP, "/etc/hosts": HOSTS}
REMOVED = [f"{NETWORKS}/10-{nic}.network" for nic in recipe.NETWORKS]


def exchange(folder: Path) -> str:
    """Commands for debugfs: the image's own settings out, those of a box in, by files in the folder."""
    lines = [f"rm {path}" for path in (*REMOVED, *FILES)]
    for number, (path, content) in enumerate(FILES.items()):
        (folder / f"file{number}").write_text(content)
        place, _, file = path.rpartition("/")  # debugfs writes into the folder that it is in
        lines += [f"cd {place}", f"write {folder / f'file{number}'} {file}", f"sif {file} mode 0100644"]
    return "\n".join(lines) + "\n"


def debugfs(disk: Path, *words: str) -> str:
    """What debugfs prints. It does not tell by its exit code whether a command did what it should."""
    return child.run(["debugfs", *words, str(disk)], what=f"debugfs on {disk}", timeout=60)


def change_disk(disk: Path, folder: Path) -> None:
    """Exchange the files, and look whether they are."""
    commands = folder / "commands"
    commands.write_text(exchange(folder))
    debugfs(disk, "-w", "-f", str(commands))
    there = debugfs(disk, "-R", f"ls -p {NETWORKS}").split("/")
    wrong = [path for path, content in FILES.items() if debugfs(disk, "-R", f"cat {path}") != content]
    wrong += [path for path in REMOVED if path.rpartition("/")[2] in there]
    if wrong:
        raise VmError("the box's disk is not as meant", f"Wrong in it: {', '.join(wrong)}.")


def pack(source: image.Image, folder: Path, target: Path) -> None:
    """The box: its disk, what Vagrant wants to know of it, and the key that its machines know."""
    raw, disk = folder / "disk.raw", folder / "box.img"
    copy = ["cp", "--sparse=always", str(source.disk), str(raw)]
    child.run(copy, what="copying the disk", timeout=CONVERT_S)
    change_disk(raw, folder)
    child.run(
        ["qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(disk)],
        what="converting the disk",
        timeout=CONVERT_S,
        hint=f"Is there space in {folder}?",
    )
    (folder / "metadata.json").write_text(json.dumps(METADATA))
    (folder / "Vagrantfile").write_text(VAGRANTFILE)
    shutil.copyfile(source.key, folder / "key")
    (folder / "key").chmod(0o600)
    with tarfile.open(target, "w") as tar:
        for part in ("metadata.json", "Vagrantfile", "key", "box.img"):
            tar.add(folder / part, part)


def name(source: image.Image) -> str:
    """The box's name: another image or another way to make a box of it is another box, for Vagrant too."""
    return f"valkyrie-{source.folder.name}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]}"


def build(release: str, folder: Path) -> Path:
    """The box's file, made unless it is there."""
    wanted = recipe.Recipe(release, recipe.requirements((CHECKOUT / "pyproject.toml").read_text()))
    source = image.cached(wanted, say)
    box = folder / f"{name(source)}.box"
    if box.exists():
        return box
    if shutil.which("qemu-img") is None:
        raise VmError("qemu-img is not installed", hint="Run: sudo apt-get install qemu-utils")
    folder.mkdir(parents=True, exist_ok=True)
    image.room(folder)
    say("packing the box")
    with tempfile.TemporaryDirectory(prefix="making-", dir=folder) as making:
        pack(source, Path(making), Path(making) / "box")
        for part, suffix in ((source.kernel, ".vmlinuz"), (source.initrd, ".initrd")):
            shutil.copyfile(part, Path(making) / "part")
            (Path(making) / "part").chmod(0o644)
            (Path(making) / "part").rename(box.with_suffix(suffix))
        (Path(making) / "box").rename(box)  # last: a box that is there is complete
    return box


def say(text: str) -> None:
    """Tell on standard error: the box's path is all that goes to standard output."""
    sys.stderr.write(f"box: {text}\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    arguments = argparse.ArgumentParser(description="Make a Vagrant box of the image that vm/run boots.")
    arguments.add_argument("--release", choices=recipe.RELEASES, default=recipe.RELEASES[0])
    arguments.add_argument("--folder", type=Path, default=FOLDER, help=f"where to put it (default: {FOLDER})")
    return arguments.parse_args(argv)


def main() -> int:
    """Make the box, print its path."""
    given = parse(sys.argv[1:])
    if os.geteuid() != 0:
        say("making an image needs root. Run: sudo vm/make_box.py")
        return 1
    try:
        sys.stdout.write(f"{build(given.release, given.folder.resolve())}\n")
    except VmError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
