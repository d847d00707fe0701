# SPDX-License-Identifier: Apache-2.0
"""The directory of pins on the BPF file system."""

import ctypes
import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkyrie.control.errors import DataplaneError, PermissionRefused, Unavailable

PROGRAM = "police"
BPFFS_MAGIC = 0xCAFE4A11
POLL_S = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


def is_bpffs(path: Path) -> bool:
    """Whether the path lies on a BPF file system."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) < 0:
        return False
    return int.from_bytes(buffer.raw[:4], sys.byteorder) == BPFFS_MAGIC


def mount(bpffs: Path) -> None:
    """Make sure that a BPF file system is mounted there; mounts one if not.

    Raises Unavailable or PermissionRefused.
    """
    if is_bpffs(bpffs):
        return
    try:
        bpffs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"making {bpffs}: {error.strerror}", "choose another path for `bpffs`") from error
    if _libc.mount(b"bpf", os.fsencode(bpffs), b"bpf", 0, None) == 0:
        return
    number = ctypes.get_errno()
    what = f"mounting a BPF file system at {bpffs}: {os.strerror(number)}"
    if number in (errno.EPERM, errno.EACCES):
        raise PermissionRefused(what, "run it as root")
    if number == errno.ENODEV:
        raise Unavailable(
            what, "this kernel has no BPF file system (CONFIG_BPF_SYSCALL): use Linux 5.15 or newer"
        )
    raise Unavailable(what, f"try `mount -t bpf bpf {bpffs}`")


def prepare(pin_dir: Path) -> None:
    """Make the pin directory on a BPF file system that is mounted at its parent, if need be.

    Raises Unavailable if that is read-only, PermissionRefused without the right to write.
    """
    mount(pin_dir.parent)
    try:
        pin_dir.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _refused(error, pin_dir) from error
    if not os.access(pin_dir, os.W_OK):
        raise Unavailable(
            f"the BPF file system at {pin_dir.parent} is read-only", f"mount -o remount,rw {pin_dir.parent}"
        )


def _refused(error: OSError, path: Path) -> Exception:
    what = f"writing {path}: {error.strerror}"
    if error.errno == errno.EROFS:
        return Unavailable(what, f"mount -o remount,rw {path.parent}")
    if error.errno in (errno.EPERM, errno.EACCES):
        return PermissionRefused(what, "run it as root")
    return DataplaneError(what, "see `valkyrie-ctl doctor`")


def pinned(pin_dir: Path) -> set[str]:
    """The names pinned there; empty if there is no such directory."""
    return {path.name for path in pin_dir.iterdir()} if pin_dir.is_dir() else set()


def remove(pin_dir: Path, names: set[str] | None = None) -> None:
    """Unpin the names (None: all) and the directory when it is empty then.

    What is attached to a NIC lives on until it is detached.
    """
    for name in pinned(pin_dir) if names is None else names & pinned(pin_dir):
        (pin_dir / name).unlink()
    if pin_dir.is_dir() and not pinned(pin_dir):
        pin_dir.rmdir()


@contextmanager
def locked(pin_dir: Path, patience_s: float) -> Iterator[int]:
    """Prepare the directory and be the only one who builds there; the descriptor that holds the lock, so
    that a process which inherits it holds the lock too. Raises as prepare(), and Unavailable.
    """
    deadline = time.monotonic() + patience_s
    while True:
        prepare(pin_dir)
        descriptor = os.open(pin_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _lock(descriptor) and _is(descriptor, pin_dir):
                yield descriptor
                return
        finally:
            os.close(descriptor)
        if time.monotonic() >= deadline:
            raise Unavailable(
                f"another process has been building a program in {pin_dir} for {patience_s:g} s",
                "is a second valkyried running, with the same `pin_dir`?",
            )
        time.sleep(POLL_S)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(descriptor: int, path: Path) -> bool:
    """Whether the directory is there still: whoever built before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
