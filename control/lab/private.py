# SPDX-License-Identifier: Apache-2.0
"""A place for state, socket and pins that nobody else sees and that vanishes with the process."""

import ctypes
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkyrie.control.errors import PermissionRefused, Unavailable

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _mount(kind: bytes | None, target: bytes, flags: int = 0) -> None:
    if _libc.mount(kind, target, kind, flags, None) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL and not kind:
        raise Unavailable(
            f"{target.decode()} is no mount point, as in a plain chroot, so mounts cannot be kept private",
            "before entering the chroot: mount --bind ROOT ROOT",
        )
    text = f"mounting {(kind or b'').decode()} at {target.decode()}: {os.strerror(number)}"
    raise PermissionRefused(text, "the lab needs root: run it with sudo")


@contextmanager
def private_place() -> Iterator[Path]:
    """An empty directory in memory, with a BPF file system mounted at its folder `bpf`.

    Moves the process into a mount namespace of its own, for good, while it still has one thread;
    programs that it starts see the place and keep their temporary files there, all others see an
    empty directory.
    """
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise PermissionRefused(
            f"unshare: {os.strerror(ctypes.get_errno())}", "the lab needs root: run it with sudo"
        )
    _mount(None, b"/", MS_REC | MS_PRIVATE)
    with tempfile.TemporaryDirectory(prefix="valkyrie-lab-") as folder:
        place = os.fsencode(folder)
        _mount(b"tmpfs", place)
        try:
            bpffs = Path(folder) / "bpf"
            bpffs.mkdir()
            _mount(b"bpf", os.fsencode(bpffs))
            try:
                os.environ["TMPDIR"] = folder
                yield Path(folder)
            finally:
                _libc.umount2(os.fsencode(bpffs), MNT_DETACH)
        finally:
            _libc.umount2(place, MNT_DETACH)
