# SPDX-License-Identifier: Apache-2.0
"""Attaching, replacing and detaching on real NICs of throw-away namespaces."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.netns import End, add_nic, veth_pair
from valkyrie.control.dataplane import attach, bpf, pins
from valkyrie.control.dataplane.links import set_xdp
from valkyrie.control.errors import DataplaneError, Foreign, NotFound, PermissionRefused
from valkyrie.control.lab.netns import Namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and BPF need root")

DROP, PASS = 1, 2
TRIES = 10  # of a packet to arrive: the first may find no carrier yet, or no neighbour


def program(name: str, verdict: int) -> int:
    move = struct.pack("=BBhi", 0xB7, 0, 0, verdict)
    leave = struct.pack("=BBhi", 0x95, 0, 0, 0)
    return bpf.load_xdp(move + leave, name)


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    with veth_pair() as pair:
        yield pair


@pytest.fixture
def load() -> Iterator[Callable[[str, int], int]]:
    """Programs whose descriptors are closed at the end."""
    held: list[int] = []

    def make(name: str, verdict: int) -> int:
        held.append(program(name, verdict))
        return held[-1]

    yield make
    for fd in held:
        os.close(fd)


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/valkyrie-attach-{os.getpid()}")
    pins.prepare(path)
    yield path
    pins.remove(path)


@pytest.fixture
def ours(pin_dir: Path, load: Callable[[str, int], int]) -> int:
    fd = load(pins.PROGRAM, PASS)
    bpf.obj_pin(fd, pin_dir / pins.PROGRAM)
    return fd


def arrives(sender: Namespace, receiver: Namespace) -> bool:
    """Whether a UDP packet gets through to 10.9.0.1."""

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("10.9.0.1", 9999))
        listener.settimeout(0.3)
        return listener

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(b"hello", ("10.9.0.1", 9999))

    with receiver.call(listen) as listener:
        sender.call(send)
        try:
            return listener.recv(100) == b"hello"
        except TimeoutError:
            return False


def test_auto_attaches_natively_to_a_driver_that_can(ends: tuple[End, End], ours: int, pin_dir: Path) -> None:
    inside = ends[0].namespace
    done = inside.call(attach.attach, "nic0", ours, pin_dir)
    assert (done.mode, done.note, done.ifindex) == ("native", "", ends[0].ifindex)
    found = inside.call(attach.query, "nic0", pin_dir)
    assert found.program is not None
    assert (found.program.id, found.program.ours) == (bpf.prog_info(ours).id, True)


def test_the_attached_program_decides_what_passes(
    ends: tuple[End, End], ours: int, pin_dir: Path, load: Callable[[str, int], int]
) -> None:
    inside, world = ends[0].namespace, ends[1].namespace
    assert any(arrives(world, inside) for _ in range(TRIES))
    inside.call(attach.attach, "nic0", ours, pin_dir)
    assert any(arrives(world, inside) for _ in range(TRIES))
    upgraded = load(pins.PROGRAM, DROP)
    inside.call(attach.attach, "nic0", upgraded, pin_dir)
    assert not arrives(world, inside)


def test_a_driver_without_native_mode_gets_generic_and_the_reason(
    ends: tuple[End, End], ours: int, pin_dir: Path
) -> None:
    inside = ends[0].namespace
    done = inside.call(attach.attach, "lo", ours, pin_dir)
    assert done.mode == "generic"
    assert "refused native XDP" in done.note


def test_native_forced_on_a_driver_without_it_attaches_nothing(
    ends: tuple[End, End], ours: int, pin_dir: Path
) -> None:
    inside = ends[0].namespace
    with pytest.raises(DataplaneError, match="native mode"):
        inside.call(attach.attach, "lo", ours, pin_dir, "native")
    assert inside.call(attach.query, "lo", pin_dir).program is None


def test_a_foreign_program_is_named_and_left_alone(
    ends: tuple[End, End], ours: int, pin_dir: Path, load: Callable[[str, int], int]
) -> None:
    inside = ends[0].namespace
    other = load("somebody", PASS)
    inside.call(set_xdp, ends[0].ifindex, other, attach.NATIVE)
    for change in (
        lambda: inside.call(attach.attach, "nic0", ours, pin_dir),
        lambda: inside.call(attach.detach, "nic0", pin_dir),
    ):
        with pytest.raises(Foreign, match=rf"id {bpf.prog_info(other).id}, name somebody"):
            change()
        held = inside.call(attach.query, "nic0", pin_dir).program
        assert held is not None
        assert (held.id, held.ours) == (bpf.prog_info(other).id, False)


def test_a_foreign_program_is_replaced_when_that_is_asked(
    ends: tuple[End, End], ours: int, pin_dir: Path, load: Callable[[str, int], int]
) -> None:
    inside = ends[0].namespace
    inside.call(set_xdp, ends[0].ifindex, load("somebody", PASS), attach.GENERIC)
    done = inside.call(lambda: attach.attach("nic0", ours, pin_dir, replace=True))
    assert done.mode == "generic"
    assert inside.call(attach.query, "nic0", pin_dir).program is not None


def test_a_program_that_came_in_between_is_not_thrown_out(
    ends: tuple[End, End], ours: int, pin_dir: Path, load: Callable[[str, int], int]
) -> None:
    inside = ends[0].namespace
    inside.call(attach.attach, "nic0", ours, pin_dir)
    seen = inside.call(attach.query, "nic0", pin_dir)
    other = load("somebody", PASS)
    inside.call(lambda: attach.attach("nic0", other, pin_dir, replace=True))
    assert seen.program is not None
    with pytest.raises(Foreign):
        inside.call(attach._remove, seen, seen.program)
    held = inside.call(attach.query, "nic0", pin_dir).program
    assert held is not None
    assert held.id == bpf.prog_info(other).id


def test_one_program_serves_several_nics(ends: tuple[End, End], ours: int, pin_dir: Path) -> None:
    inside = ends[0].namespace
    add_nic(inside, "nic1")
    for name in ("nic0", "nic1", "lo"):
        inside.call(attach.attach, name, ours, pin_dir)
    held = [nic.program for nic in inside.call(attach.nics, pin_dir) if nic.program is not None]
    assert [found.id for found in held] == [bpf.prog_info(ours).id] * 3


def test_forcing_another_mode_changes_it_and_says_so(ends: tuple[End, End], ours: int, pin_dir: Path) -> None:
    inside = ends[0].namespace
    inside.call(attach.attach, "nic0", ours, pin_dir, "generic")
    done = inside.call(attach.attach, "nic0", ours, pin_dir, "native")
    assert done.mode == "native"
    assert "generic mode ended" in done.note


def test_a_mode_that_cannot_be_had_leaves_the_old_one(
    ends: tuple[End, End], ours: int, pin_dir: Path
) -> None:
    inside = ends[0].namespace
    inside.call(attach.attach, "lo", ours, pin_dir)
    with pytest.raises(DataplaneError):
        inside.call(attach.attach, "lo", ours, pin_dir, "native")
    held = inside.call(attach.query, "lo", pin_dir).program
    assert held is not None
    assert held.mode == "generic"


def test_a_nic_left_open_by_a_change_of_mode_is_said_to_be_open(
    ends: tuple[End, End], ours: int, pin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = ends[0].namespace
    inside.call(attach.attach, "nic0", ours, pin_dir, "generic")

    def refuse_additions(ifindex: int, fd: int, flags: int, expected: int | None = None) -> None:
        if fd != attach.REMOVE:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        set_xdp(ifindex, fd, flags, expected)

    monkeypatch.setattr(attach, "set_xdp", refuse_additions)
    with pytest.raises(DataplaneError, match=r"nic0 is OPEN.*native.*Cannot allocate") as caught:
        inside.call(attach.attach, "nic0", ours, pin_dir, "native")
    assert caught.value.hint == "valkyrie-ctl attach nic0 --mode generic"


def test_detaching_takes_off_ours_once(ends: tuple[End, End], ours: int, pin_dir: Path) -> None:
    inside = ends[0].namespace
    inside.call(attach.attach, "nic0", ours, pin_dir)
    assert inside.call(attach.detach, "nic0", pin_dir) is True
    assert inside.call(attach.query, "nic0", pin_dir).program is None
    assert inside.call(attach.detach, "nic0", pin_dir) is False


def test_an_unknown_nic_is_answered_with_those_there_are(ends: tuple[End, End], pin_dir: Path) -> None:
    for name in ("nic9", "", "x" * 300):
        with pytest.raises(NotFound) as caught:
            ends[0].namespace.call(attach.query, name, pin_dir)
        assert "nic0" in caught.value.hint


@pytest.mark.parametrize("name", ["", "nic0\0", "nic0\0x", "n" * 16, "nic0:1", "ä" * 8, "%d"])
def test_a_name_that_no_nic_can_have_finds_none(ends: tuple[End, End], pin_dir: Path, name: str) -> None:
    with pytest.raises(NotFound, match="there is no NIC"):
        ends[0].namespace.call(attach.query, name, pin_dir)


async def test_it_works_inside_a_running_event_loop(pin_dir: Path) -> None:
    assert attach.query("lo", pin_dir).ifindex == 1


def test_without_the_right_it_says_so(ends: tuple[End, End], pin_dir: Path) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            program("police", PASS)
        except PermissionRefused:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
