# SPDX-License-Identifier: Apache-2.0
"""The Unix socket of the API: made under a umask, 0660, and never stolen from a living daemon.

Two groups must reach one socket: the owner group may write and stands in the mode, the read-only
group gets an entry of a POSIX access list, so that CLI and scripts know a single path and others
are turned away by the kernel. What each may do is decided by the peer's credentials (peer.py).
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import socket
import stat
import struct
from pathlib import Path

from valkyrie.control.errors import Conflict, PermissionRefused, Unavailable

log = logging.getLogger(__name__)

BACKLOG = 64
MAX_PATH = 107  # sun_path less its final zero

# linux/posix_acl_xattr.h: version, then (tag, permissions, id) for each entry, ids ascending.
ACL_NAME = "system.posix_acl_access"
ACL_VERSION = 2
ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 0x01, 0x04, 0x08, 0x10, 0x20
NO_ID = 0xFFFFFFFF
READ_WRITE = 6


def group_id(name: str) -> int | None:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(name).gr_gid
    return None


def bind(path: Path, *, write_group: int | None, read_group: int | None) -> socket.socket:
    """A listening socket at `path`, mode 0660: who calls before the daemon serves waits for it.

    Raises Conflict when another process answers there, Unavailable when it cannot be made.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise Unavailable(f"the socket path {path} is longer than {MAX_PATH} bytes", "choose a shorter one")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            mask = os.umask(0o177)
            try:
                listener.bind(os.fspath(path))
            finally:
                os.umask(mask)
            if write_group is not None:
                os.chown(path, -1, write_group)
            path.chmod(0o660)
            if read_group is not None:
                _admit(path, read_group)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except PermissionError as error:
        raise PermissionRefused(
            f"cannot make the socket {path}: {error.strerror}", "run valkyried as root"
        ) from error
    except OSError as error:
        raise Unavailable(
            f"cannot make the socket {path}: {error.strerror}", "check the folder it lies in"
        ) from error
    return listener


def access_list(group: int) -> bytes:
    """The extended attribute by which owner, owner group and `group` may connect, and nobody else."""
    entries = (
        (ACL_USER_OBJ, READ_WRITE, NO_ID),
        (ACL_GROUP_OBJ, READ_WRITE, NO_ID),
        (ACL_GROUP, READ_WRITE, group),
        (ACL_MASK, READ_WRITE, NO_ID),
        (ACL_OTHER, 0, NO_ID),
    )
    return struct.pack("<I", ACL_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _admit(path: Path, group: int) -> None:
    try:
        os.setxattr(path, ACL_NAME, access_list(group))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        log.warning(
            "%s: this file system has no access lists, so the read-only group cannot connect", path.parent
        )


def _remove_stale(path: Path) -> None:
    """Remove what a daemon that was killed left behind; a living one is left alone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"{path} exists and is no socket", "move it away, or choose another `socket`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass
    raise Conflict(
        f"another process answers at {path}", "stop the valkyried that runs, or choose another `socket`"
    )
