# SPDX-License-Identifier: Apache-2.0
"""Make the guest's image, and keep it: a folder with disk, kernel, initrd and keys, complete or not there.

Nothing is mounted on this host: the file system is made from a folder, and what runs in that folder does
so in mount and process namespaces that end with their commands.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import child, initrd
from harness.errors import VmError
from harness.lock import alone
from harness.recipe import MASKED, PACKAGES, READY, READY_LINK, WHEELS, Recipe, files
from harness.root import making

CACHE = Path("/var/cache/valkyrie-vm")
DISK_BYTES = 3 << 30  # sparse: what is written counts
NEEDED_BYTES = 4 << 30  # a root, its disk, the cached one
PARTS = ("disk.raw", "vmlinuz", "initrd", "key", "key.pub", "host_key.pub")
PIECE = 1 << 20
OTHERS = 2  # images of other keys that stay: the other release's, another branch's
BUSYBOX = Path("/bin/busybox")
HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NETWORK_HINT = (
    "The image is made once and needs Debian's mirror and the Python index; connect this host and run again."
)

# How this host reaches its registries is lent to the chroot for this one command.
FETCH_WHEELS = """
set -e
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
for part in tmp run root; do mount -t tmpfs tmpfs "$ROOT/$part"; done
for file in /etc/resolv.conf /etc/pip.conf; do
    [ ! -e "$file" ] || { [ -e "$ROOT$file" ] || : >"$ROOT$file"; mount --bind "$file" "$ROOT$file"; }
done
[ ! -e "$CERTIFICATES" ] || cp "$CERTIFICATES" "$ROOT/root/host.crt"
chroot "$ROOT" /bin/sh -ec '
    python3 -m venv /tmp/pip
    /tmp/pip/bin/python -m pip wheel --quiet --no-cache-dir --wheel-dir "$WHEELS" "$@"
    set -- --no-index --find-links "$WHEELS" --target "$READY" "$@"
    /tmp/pip/bin/python -m pip install --quiet "$@"' pip "$@"
"""


@dataclass(frozen=True)
class Image:
    """A complete image."""

    folder: Path
    release: str

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def known_host(self) -> str:
        return (self.folder / "host_key.pub").read_text()


def digest(path: Path) -> str:
    """The SHA-256 of a file's size and content, quick for a sparse file.

    Zeros count alike whether they are written or a hole: the file system may make one of the other.
    """
    found = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found.update(b"%d" % size)
        start = 0
        while start < size:
            try:
                start = os.lseek(file.fileno(), start, os.SEEK_DATA) // PIECE * PIECE
            except OSError:  # no more data
                break
            piece = os.pread(file.fileno(), PIECE, start)
            if piece.strip(b"\0"):
                found.update(b"@%d" % start + piece)
            start += PIECE
    return found.hexdigest()


def damage(folder: Path) -> str | None:
    """What is wrong with a cached image, if anything."""
    try:
        told = json.loads((folder / "manifest.json").read_text())
        for part in PARTS:
            if digest(folder / part) != told[part]:
                return f"{part} is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it is incomplete: {error}"
    return None


def tidy(cache: Path, keep: str) -> None:
    """Remove what a broken build left, and of other images all but those that were used last."""
    entries = [entry for entry in cache.iterdir() if entry.is_dir() and entry.name != keep]
    broken = [entry for entry in entries if entry.name.startswith("making-")]
    others = sorted(set(entries) - set(broken), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in (*broken, *others[OTHERS:]):
        shutil.rmtree(entry, ignore_errors=True)


def cached(recipe: Recipe, say: Callable[[str], None], cache: Path = CACHE) -> Image:
    """The image of `recipe`: from the cache if it is whole there, else made."""
    folder = cache / recipe.key()
    with alone(cache):
        tidy(cache, folder.name)
        if folder.exists():
            wrong = damage(folder)
            if wrong is None:
                os.utime(folder)
                return Image(folder, recipe.release)
            say(f"the cached image {folder} is broken ({wrong}); making it anew")
            shutil.rmtree(folder)
        room(cache)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
        try:
            make(recipe, making, say)
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return Image(folder, recipe.release)


def room(place: Path, needed: int = NEEDED_BYTES) -> None:
    """Refuse early what would fail late for want of space."""
    free = shutil.disk_usage(place).free
    if free < needed:
        raise VmError(
            f"no space for the image in {place}",
            f"{free >> 20} MiB are free, {needed >> 20} MiB are needed.",
            "Make room there, and run again; old images in it may be removed.",
        )


def make(recipe: Recipe, folder: Path, say: Callable[[str], None]) -> None:
    """Everything of the image, in `folder`."""
    root = folder / "root"
    say(f"making the image of {recipe.release}: Debian's packages")
    child.run(
        making(recipe.release, root, PACKAGES),
        what=f"installing Debian {recipe.release} into a folder",
        timeout=900,
        hint=NETWORK_HINT,
        env={**os.environ, "INITRD": "No", "TMPDIR": str(folder)},  # Debian's own initrd is not used
    )
    say("making the image: Python's packages")
    fetch_wheels(root, recipe.wheels)
    settle(root, folder)
    modules = next((root / "lib/modules").iterdir())
    shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    (folder / "initrd").write_bytes(initrd.build(modules, BUSYBOX.read_bytes()))
    say("making the image: the disk")
    child.run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1", "-d", str(root)),
            *(str(folder / "disk.raw"), f"{DISK_BYTES >> 20}M"),
        ],
        what="making the file system",
        timeout=300,
        hint=f"Is there space in {folder.parent}?",
    )
    shutil.rmtree(root)
    for part in PARTS:
        with (folder / part).open("rb") as file:
            os.fsync(file.fileno())
    (folder / "manifest.json").write_text(json.dumps({part: digest(folder / part) for part in PARTS}))


def fetch_wheels(root: Path, wanted: tuple[str, ...]) -> None:
    """Wheels that fit the guest's Python, fetched and where needed built by it."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    certificate = {"PIP_CERT": "/root/host.crt"} if HOST_CERTIFICATES.exists() else {}
    child.run(
        [*child.APART, "bash", "-c", FETCH_WHEELS, "fetch", *wanted],
        what="fetching Python's packages for the image",
        timeout=600,
        hint=NETWORK_HINT,
        env={
            **settings,
            **certificate,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            "ROOT": str(root),
            "WHEELS": WHEELS,
            "READY": READY,
            "CERTIFICATES": str(HOST_CERTIFICATES),
        },
    )


def settle(root: Path, folder: Path) -> None:
    """The machine's own settings, and the keys by which it and its visitor know each other."""
    for path, content in files().items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    for python in (root / "usr/local/lib").glob("python3.*"):
        (python / "dist-packages").mkdir(exist_ok=True)
        (python / "dist-packages" / READY_LINK).write_text(f"{READY}\n")
    units = root / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    child.run(
        ["chroot", str(root), "systemctl", "--quiet", "enable", "systemd-networkd.service", "ssh.service"],
        what="enabling the guest's network",
        timeout=60,
    )
    (root / "etc/machine-id").write_text("")
    (root / "var/log/journal").mkdir(exist_ok=True)  # with the folder the journal outlives a reboot
    for name, comment in (("key", "vm"), ("host_key", "appliance")):
        child.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(folder / name)],
            what="making keys",
            timeout=60,
        )
    for stock in (root / "etc/ssh").glob("ssh_host_*"):
        stock.unlink()
    (folder / "host_key").rename(root / "etc/ssh/ssh_host_ed25519_key")
    shutil.copyfile(folder / "host_key.pub", root / "etc/ssh/ssh_host_ed25519_key.pub")
    visitors = root / "root/.ssh"
    visitors.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(folder / "key.pub", visitors / "authorized_keys")
