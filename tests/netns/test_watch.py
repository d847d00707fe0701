# SPDX-License-Identifier: Apache-2.0
"""Link events of real NICs, and a NIC that comes back."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.netns import End, add_nic, delete_link, set_link, veth_pair
from valkyrie.control.dataplane import attach, bpf, watch
from valkyrie.control.dataplane.links import set_xdp
from valkyrie.control.dataplane.watch import LinkEvent, LinkWatch

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and BPF need root")
SECONDS = 5


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    with veth_pair() as pair:
        yield pair


async def until(subscription: LinkWatch, **wanted: object) -> list[LinkEvent]:
    """The events up to the first that has the wanted fields."""
    seen: list[LinkEvent] = []
    async with asyncio.timeout(SECONDS):
        async for event in subscription.events():
            seen.append(event)
            if all(getattr(event, field) == value for field, value in wanted.items()):
                return seen
    raise AssertionError(seen)


@needs_root
async def test_down_and_up_are_told(ends: tuple[End, End]) -> None:
    with ends[0].namespace.call(LinkWatch) as subscription:
        set_link(ends[0].namespace, "nic0", "down")
        await until(subscription, kind="changed", name="nic0", up=False)
        set_link(ends[0].namespace, "nic0", "up")
        await until(subscription, kind="changed", ifindex=ends[0].ifindex, up=True)


@needs_root
async def test_a_removed_nic_is_told_and_so_is_its_successor(ends: tuple[End, End]) -> None:
    inside = ends[0].namespace
    first = add_nic(inside, "nic1")
    with inside.call(LinkWatch) as subscription:
        delete_link(inside, "nic1")
        await until(subscription, kind="removed", ifindex=first, name="nic1")
        second = add_nic(inside, "nic1")
        assert second != first
        await until(subscription, kind="changed", ifindex=second, name="nic1", up=True)


@needs_root
async def test_attach_and_detach_show_and_a_replacement_leaves_no_gap(ends: tuple[End, End]) -> None:
    inside = ends[0].namespace
    code = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    fds = [bpf.load_xdp(code, "first"), bpf.load_xdp(code, "second")]
    ids = [bpf.prog_info(fd).id for fd in fds]
    try:
        with inside.call(LinkWatch) as subscription:
            inside.call(set_xdp, ends[0].ifindex, fds[0], attach.NATIVE | attach.IF_NONE)
            await until(subscription, prog_id=ids[0])
            inside.call(set_xdp, ends[0].ifindex, fds[1], attach.NATIVE | attach.REPLACE, fds[0])
            between = await until(subscription, prog_id=ids[1])
            assert {event.prog_id for event in between} <= set(ids)
            inside.call(set_xdp, ends[0].ifindex, attach.REMOVE, attach.NATIVE | attach.REPLACE, fds[1])
            await until(subscription, prog_id=0)
    finally:
        for fd in fds:
            os.close(fd)


@needs_root
def test_lost_events_ask_for_a_look_at_everything(ends: tuple[End, End]) -> None:
    with ends[0].namespace.call(LinkWatch) as subscription:
        subscription._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(10):
            set_link(ends[0].namespace, "nic0", "down")
            set_link(ends[0].namespace, "nic0", "up")
        kinds: list[str] = []
        while found := subscription.read():
            kinds += [event.kind for event in found]
        assert "resync" in kinds


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_left_out(data: bytes) -> None:
    assert isinstance(watch.parse(data), list)


@given(st.integers(0, 200))
def test_a_message_cut_anywhere_is_left_out(cut: int) -> None:
    name = struct.pack("=HH", 4 + 5, watch.IFNAME) + b"nic0\0" + b"\0\0\0"
    body = struct.pack("=BxHiII", 0, 1, 7, watch.IFF_UP, 0) + name
    whole = struct.pack("=IHHII", 16 + len(body), watch.NEWLINK, 0, 0, 0) + body
    expected = [LinkEvent("changed", 7, "nic0", up=True)] if cut >= len(whole) else []
    assert watch.parse(whole[:cut]) == expected


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def test_beside_a_program_in_the_hardware_the_one_in_the_driver_is_told() -> None:
    several, hardware, driver = attribute(2, b"\4"), attribute(7, b"\x09\0\0\0"), attribute(5, b"\x05\0\0\0")
    body = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + attribute(watch.XDP | 0x8000, several + hardware + driver)
    (event,) = watch.parse(struct.pack("=IHHII", 16 + len(body), watch.NEWLINK, 0, 0, 0) + body)
    assert (event.prog_id, event.xdp) == (5, watch.ATTACHED_DRV)
