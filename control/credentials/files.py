# SPDX-License-Identifier: Apache-2.0
"""Private files: written whole or not at all, read only if nobody else could have."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from valkyrie.control.errors import StateError

PRIVATE = 0o600


def write_private(path: Path, content: bytes) -> None:
    """Replace the file by one with this content, mode 0600. After a crash it is the old or the new one.

    Raises StateError; the old one then stays.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A leftover of a crash may have been made with another mode.
        new.unlink(missing_ok=True)
        descriptor = os.open(
            new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot("write", path, error) from error


def remove(path: Path) -> None:
    """Raises StateError. Nothing is said if there is none."""
    try:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot("remove", path, error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path, most: int, *, judge: bool = True) -> bytes | None:
    """The content; None if there is no such file. Raises StateError, with `judge` also for a file that
    others can read, is somebody else's or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if judge:
                _judge(path, os.fstat(file.fileno()))
            content = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error) from error
    if len(content) > most:
        raise StateError(f"{path} is larger than {most} bytes", "it is not what Valkyrie wrote")
    return content


def _judge(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise StateError(f"{path} is not a regular file", "move it away and restore it from a backup")
    if found.st_uid not in (0, os.geteuid()):
        raise StateError(f"{path} belongs to user id {found.st_uid}", f"run: chown root: {path}")
    if found.st_mode & 0o077:
        raise StateError(
            f"{path} can be read by others (mode {found.st_mode & 0o777:04o}): it is not used",
            f"run: chmod 600 {path}; if somebody may have read it, then: valkyrie-ctl creds rekey",
        )


def _cannot(verb: str, path: Path, error: OSError) -> StateError:
    hint = (
        "free some disk space and repeat the change"
        if error.errno == errno.ENOSPC
        else "state_dir must be a folder that valkyried, run as root, can write"
    )
    return StateError(f"cannot {verb} {path}: {error.strerror}", hint)
