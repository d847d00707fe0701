# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces joined by veth, gone when the test ends, however it ends."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pyroute2 import IPRoute

from valkyrie.control.lab.netns import Namespace, join


@dataclass(frozen=True)
class End:
    """One end of a veth pair."""

    namespace: Namespace
    nic: str
    ifindex: int
    mac: str


@contextmanager
def veth_pair(
    *, inside: tuple[str, ...] = ("10.9.0.1/24",), outside: tuple[str, ...] = ("10.9.0.2/24",)
) -> Iterator[tuple[End, End]]:
    """(the appliance's end `nic0`, the world's end `world0`), each in a namespace of its own."""
    with ExitStack() as stack:
        appliance = stack.enter_context(Namespace())
        world = stack.enter_context(Namespace())
        left, right = join(appliance, "nic0", world, "world0", left_addresses=inside, right_addresses=outside)
        yield End(appliance, "nic0", *left), End(world, "world0", *right)


def add_nic(namespace: Namespace, name: str) -> int:
    """One more veth NIC, its peer beside it; its ifindex."""

    def make() -> int:
        with IPRoute() as ip:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}-peer"})
            index = int(ip.link_lookup(ifname=name)[0])
            ip.link("set", index=index, state="up")
            return index

    return namespace.call(make)


def set_link(namespace: Namespace, name: str, state: str) -> None:
    """Set a NIC up or down."""

    def change() -> None:
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state=state)

    namespace.call(change)


def delete_link(namespace: Namespace, name: str) -> None:
    """Remove a NIC, and with a veth its peer."""

    def remove() -> None:
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname=name)[0])

    namespace.call(remove)
