# SPDX-License-Identifier: Apache-2.0
"""Network namespaces without names, and veth pairs between them.

A namespace is held by a file descriptor of this process alone, so that it and its devices vanish
with the process, however it ends. `ip netns exec` would hide the BPF file system; programs enter
by nsenter instead, and Python code by a thread of the namespace's own.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from pyroute2 import IPRoute

from valkyrie.control.errors import PermissionRefused

CLONE_NEWNET = 0x40000000

P = ParamSpec("P")
R = TypeVar("R")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        text = f"{what}: {os.strerror(ctypes.get_errno())}"
        raise PermissionRefused(text, "network namespaces need root: run it with sudo")


class Namespace:
    """A network namespace, with its loopback device up; a context manager."""

    def __init__(self) -> None:
        self.fd = -1
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")
        self.call(self._make)

    def _make(self) -> None:
        _checked(_libc.unshare(CLONE_NEWNET), "making a network namespace")
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns or raises when called inside; one call at a time."""
        return self._thread.submit(function, *args, **kwargs).result()

    def apart(self, function: Callable[[], R]) -> R:
        """What the function returns or raises in a new thread inside; any number at a time."""

        def enter() -> R:
            _checked(_libc.setns(self.fd, CLONE_NEWNET), "entering a network namespace")
            return function()

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as thread:
            return thread.submit(enter).result()

    @property
    def path(self) -> str:
        """A path by which nsenter finds the namespace while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def command(self, *argv: str) -> list[str]:
        """The argument list that runs `argv` inside; it ends when this process's main thread does."""
        return ["setpriv", "--pdeathsig", "TERM", "--", "nsenter", f"--net={self.path}", "--", *argv]

    def close(self) -> None:
        """Give the namespace up: the kernel removes it when nothing is left inside."""
        self._thread.shutdown()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _raise_link(name: str, addresses: tuple[str, ...]) -> tuple[int, str]:
    with IPRoute() as ip:
        index: int = ip.link_lookup(ifname=name)[0]
        for address in addresses:
            host, length = address.split("/")
            ip.addr("add", index=index, address=host, prefixlen=int(length))
        ip.link("set", index=index, state="up")
        mac: str = ip.get_links(index)[0].get_attr("IFLA_ADDRESS")
        return index, mac


def join(
    left: Namespace,
    left_name: str,
    right: Namespace,
    right_name: str,
    *,
    left_addresses: tuple[str, ...] = (),
    right_addresses: tuple[str, ...] = (),
    queues: int = 1,
) -> tuple[tuple[int, str], tuple[int, str]]:
    """A veth pair between two namespaces, both ends up; `address/length` each.

    Returns (ifindex, MAC address) of the left end and of the right.
    """

    def make() -> None:
        with IPRoute() as ip:
            shape = {"num_tx_queues": queues, "num_rx_queues": queues}
            peer = {"ifname": right_name, "net_ns_fd": right.fd, **shape}
            ip.link("add", ifname=left_name, kind="veth", peer=peer, **shape)

    left.call(make)
    near = left.call(_raise_link, left_name, left_addresses)
    far = right.call(_raise_link, right_name, right_addresses)
    return near, far
