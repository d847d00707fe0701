# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of the socket, by the kernel's word, and what they may do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from valkyrie.control.audit import Actor
from valkyrie.control.errors import PermissionRefused

SO_PEERGROUPS = 59  # linux/asm-generic/socket.h; Python has no name for it
CONNECTIONS_A_USER = 64  # of the 256 that there are, so that a reader cannot keep others out
MOST_BYTES = 1024  # all that Python lets getsockopt return: 256 groups


@dataclass(frozen=True)
class Peer:
    """A process as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]

    def actor(self) -> Actor:
        try:
            user = pwd.getpwuid(self.uid).pw_name
        except KeyError:
            user = str(self.uid)
        return Actor(self.uid, user, self.pid)


@dataclass(frozen=True)
class Access:
    """The groups that may change things and those that may look; None: this host has no such group."""

    write_group: int | None
    read_group: int | None

    def may_write(self, peer: Peer) -> bool:
        return peer.uid in (0, os.geteuid()) or self.write_group in peer.groups

    def check(self, peer: Peer | None, *, write: bool) -> Peer:
        """The peer, who may. Raises PermissionRefused. Root and the daemon's own user may do all."""
        if peer is None:
            raise PermissionRefused("the kernel does not say who you are", "connect by the Unix socket")
        if self.may_write(peer):
            return peer
        if self.read_group in peer.groups:
            if write:
                raise PermissionRefused(
                    "members of the read-only group may look and not change",
                    "use sudo, or join the group valkyrie",
                )
            return peer
        raise PermissionRefused(
            f"user id {peer.uid} may not use the API",
            "use sudo, or join the group valkyrie (valkyrie-read to look)",
        )


def peer_of(connection: socket.socket) -> Peer:
    """The peer of a connected Unix socket. Raises OSError for any other socket."""
    pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid, frozenset((gid, *_groups(connection, uid, gid))))


def _groups(connection: socket.socket, uid: int, gid: int) -> Iterable[int]:
    """The peer's supplementary groups; of one with more than fit, those that the user database gives it."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MOST_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        try:
            return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
        except KeyError:
            return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which hands handlers the peer in the request's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer: Peer | None = None
        # uvloop hands out a stand-in without the options of a real socket: borrow its descriptor.
        connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        with connection, contextlib.suppress(OSError):  # without credentials nothing is allowed
            peer = peer_of(connection)
        state: dict[str, Any] = {**self.app_state, "peer": peer}
        self.app_state = state
        if self._too_many(peer):
            transport.close()

    def _too_many(self, peer: Peer | None) -> bool:
        """Whether this user has all the connections that one may have: root is always let in."""
        if peer is None or peer.uid in (0, os.geteuid()):
            return False
        same = sum(
            1
            for other in self.connections
            if isinstance(other, PeerProtocol)
            and (held := other.app_state.get("peer"))
            and held.uid == peer.uid
        )
        return same > CONNECTIONS_A_USER
