# SPDX-License-Identifier: Apache-2.0
"""The NIC that is sent by: its addresses, its neighbour, and a raw socket with the kernel's times."""

import errno
import json
import os
import select
import socket
import struct
import subprocess
import time
from contextlib import closing
from ipaddress import ip_address
from typing import Any

from profiles.target import Address
from sending.errors import TrafficError

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
ROOM = 16 << 20
LONGEST = 65536
DISCARD = 9
NEIGHBOUR_S = 4.0  # the kernel asks three times, a second apart
SEND_S = 5.0


def check(nic: str) -> None:
    """Complain if there is no such NIC, or if it is down."""
    known = sorted(name for _, name in socket.if_nameindex())
    if nic not in known:
        raise TrafficError(f"there is no NIC {nic!r} here; there are {', '.join(known)}")
    told = _ip("link", "show", "dev", nic)
    if told and "UP" not in told[0].get("flags", ["UP"]):
        raise TrafficError(f"{nic} is down; run: ip link set {nic} up")


def route(dst: Address, nic: str) -> tuple[Address, Address]:
    """(the source address the kernel takes by this NIC, the next hop)."""
    told = _ip("route", "get", str(dst), "oif", nic)
    if not told or "prefsrc" not in told[0]:
        raise TrafficError(f"{nic} has no way to {dst}; give {nic} an address of that network, and set it up")
    if told[0].get("type", "unicast") in ("broadcast", "multicast"):
        raise TrafficError(f"{dst} is a {told[0]['type']} address; give the address of one machine")
    return ip_address(told[0]["prefsrc"]), ip_address(told[0].get("gateway", str(dst)))


def own_mac(nic: str) -> str:
    """The NIC's MAC address; of loopback it is all zeros."""
    told = _ip("link", "show", "dev", nic)
    return str(told[0].get("address", "00:00:00:00:00:00")) if told else "00:00:00:00:00:00"


def neighbour_mac(hop: Address, nic: str) -> str:
    """The MAC address of the next hop: the kernel is made to ask for it."""
    if hop.is_loopback or nic == "lo":
        return "00:00:00:00:00:00"
    family = socket.AF_INET if hop.version == 4 else socket.AF_INET6
    deadline = time.monotonic() + NEIGHBOUR_S
    while time.monotonic() < deadline:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as knock:
            where = (
                (str(hop), DISCARD)
                if hop.version == 4
                else (str(hop), DISCARD, 0, socket.if_nametoindex(nic))
            )
            try:
                knock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, nic.encode())
                knock.sendto(b"", where)
            except OSError as error:
                raise TrafficError(f"nothing can be sent to {hop} by {nic}: {error.strerror}") from error
        for entry in _ip("neigh", "show", str(hop), "dev", nic):
            if "lladdr" in entry:
                return str(entry["lladdr"])
        select.select([], [], [], 0.05)
    raise TrafficError(f"{hop} does not answer on {nic}; is it up there? (--mac ADDRESS sends all the same)")


def _ip(*words: str) -> list[dict[str, Any]]:
    """What iproute2 says as JSON; nothing if it complains."""
    try:
        done = subprocess.run(
            ["ip", "-j", *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrafficError(f"`ip {' '.join(words)}` does not run ({error}); install iproute2") from error
    return list(json.loads(done.stdout)) if done.returncode == 0 and done.stdout.strip() else []


class Wire:
    """Whole frames out of and into a NIC. A context manager."""

    def __init__(self, nic: str) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise TrafficError("sending frames needs root (CAP_NET_RAW); run it with sudo") from error
        for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, ROOM)
                break
            except PermissionError:
                continue
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.setblocking(False)
        self._socket.bind((nic, ETH_P_ALL))
        self.nic = nic

    def send(self, frame: bytes) -> None:
        """Hand a frame to the NIC, waiting for room at most a few seconds."""
        deadline = time.monotonic() + SEND_S
        while True:
            try:
                self._socket.send(frame)
                return
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.EAGAIN) or time.monotonic() > deadline:
                    what = error.strerror or os.strerror(error.errno or 0)
                    raise TrafficError(f"{self.nic} takes no frame of {len(frame)} bytes: {what}") from error
            # ENOBUFS is no state that a socket becomes free of: look again soon.
            select.select([], [self._socket], [], 0.01)

    def receive(self) -> tuple[bytes, int] | None:
        """A frame that is there and its time (ns since 1970), or None."""
        try:
            frame, said, _, _ = self._socket.recvmsg(LONGEST, 64)
        except BlockingIOError:
            return None
        except OSError as error:
            raise TrafficError(f"{self.nic} went away while it was listened to: {error.strerror}") from error
        for level, kind, data in said:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, rest = struct.unpack("@ll", data[:16])
                return frame, seconds * 1_000_000_000 + rest
        return frame, time.time_ns()

    def wait(self, seconds: float) -> bool:
        """Whether a frame came within the time."""
        return bool(select.select([self._socket], [], [], max(0.0, seconds))[0])

    def missed(self) -> int:
        """Frames that came and found no room, so that their answers are missing from the count."""
        return int(struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
