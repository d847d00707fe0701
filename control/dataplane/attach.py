# SPDX-License-Identifier: Apache-2.0
"""Attach the program to NICs of the current network namespace, replace it and take it off.

Every change names the program that it expects to find (IFLA_XDP_EXPECTED_FD), so that it is atomic
and somebody else's program is never thrown out by accident.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from valkyrie.control.dataplane import bpf, pins
from valkyrie.control.dataplane.links import links, named, set_xdp
from valkyrie.control.dataplane.watch import ATTACHED_DRV, ATTACHED_SKB, LinkEvent
from valkyrie.control.errors import DataplaneError, Foreign, NotFound, PermissionRefused, ValkyrieError

Mode = Literal["native", "generic"]
Wish = Literal["auto", "native", "generic"]

IF_NONE, GENERIC, NATIVE, REPLACE = 1, 2, 4, 16
FLAGS: dict[Mode, int] = {"native": NATIVE, "generic": GENERIC}
MODES: dict[int, Mode] = {ATTACHED_DRV: "native", ATTACHED_SKB: "generic"}
REMOVE = -1


@dataclass(frozen=True)
class Program:
    """An attached XDP program. `ours`: it is this appliance's, of this or an earlier build."""

    id: int
    name: str
    tag: str
    mode: Mode
    ours: bool


@dataclass(frozen=True)
class Nic:
    """A NIC and what is attached to it (None: nothing)."""

    name: str
    ifindex: int
    up: bool
    program: Program | None


@dataclass(frozen=True)
class Attached:
    """What an attach did. `note` says why the mode is not the one asked for; "" if it is."""

    nic: str
    ifindex: int
    mode: Mode
    prog_id: int
    note: str


def _pinned_ids(pin_dir: Path) -> tuple[int, int]:
    """The ids of the pinned program and of its map `control`; 0 for what is not pinned."""
    prog_id = map_id = 0
    there = pins.pinned(pin_dir)
    if pins.PROGRAM in there:
        with bpf.opened(pin_dir / pins.PROGRAM) as fd:
            prog_id = bpf.prog_info(fd).id
    if "control" in there:
        with bpf.opened(pin_dir / "control") as fd:
            map_id = bpf.map_info(fd).id
    return prog_id, map_id


def _program(prog_id: int, mode: Mode, pin_dir: Path) -> Program:
    fd = bpf.by_id(bpf.PROG_BY_ID, prog_id)
    try:
        info = bpf.prog_info(fd)
    finally:
        os.close(fd)
    # Besides what is pinned: an earlier build over the same maps, and what a migration replaces.
    ours = False
    for place in (pin_dir, pin_dir.with_name(f"{pin_dir.name}_old")):
        pinned_id, control_id = _pinned_ids(place)
        ours |= prog_id == pinned_id or (info.name == pins.PROGRAM and control_id in info.map_ids)
    return Program(prog_id, info.name, info.tag, mode, ours)


def query(name: str, pin_dir: Path) -> Nic:
    """A NIC and its program. Raises NotFound naming the NICs there are."""
    link = named(name)
    if link is None:
        names = ", ".join(sorted(link.name for link in links())[:20])
        raise NotFound(f"there is no NIC {name[:64]}", f"there are: {names}")
    return _nic(link, pin_dir)


def _nic(link: LinkEvent, pin_dir: Path) -> Nic:
    mode = MODES.get(link.xdp)
    program = None if mode is None or not link.prog_id else _program(link.prog_id, mode, pin_dir)
    return Nic(link.name, link.ifindex, link.up, program)


def nics(pin_dir: Path) -> list[Nic]:
    """Every NIC of the namespace, by ifindex."""
    return sorted((_nic(link, pin_dir) for link in links()), key=lambda nic: nic.ifindex)


@contextmanager
def _expected(program: Program) -> Iterator[int]:
    fd = bpf.by_id(bpf.PROG_BY_ID, program.id)
    try:
        yield fd
    finally:
        os.close(fd)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _failed(error: OSError, doing: str) -> Exception:
    text = f"{doing}: {_reason(error)}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return PermissionRefused(text, "run it as root (or with CAP_NET_ADMIN and CAP_BPF)")
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return Foreign(
            f"{doing}: another XDP program came in between, or a link holds the NIC: {_reason(error)}",
            "see `bpftool net`; end what attached it",
        )
    if error.errno == errno.ENODEV:
        return NotFound(text, "the NIC has gone: see `ip link`")
    if error.errno == errno.EOPNOTSUPP:
        return DataplaneError(text, "the driver has no native XDP: use --mode generic")
    return DataplaneError(
        text, "see `valkyrie-ctl doctor` for MTU, offloads and queues, or use --mode generic"
    )


def foreign(nic: Nic, program: Program) -> Foreign:
    """The error that says whose program holds a NIC."""
    return Foreign(
        f"{nic.name} holds another XDP program: id {program.id}, name {program.name or '(none)'}, "
        f"tag {program.tag}, {program.mode} mode",
        "take it off, or attach with --replace if it may go",
    )


def attach(name: str, prog_fd: int, pin_dir: Path, wish: Wish = "auto", *, replace: bool = False) -> Attached:
    """Attach the program, or put it in the place of an earlier one of ours in the same mode.

    auto: native, or generic where the driver has none, and says why. `replace` allows to put it in
    the place of somebody else's program, atomically. Raises Foreign, NotFound, PermissionRefused,
    DataplaneError; then the NIC is as it was.
    """
    nic = query(name, pin_dir)
    held = nic.program
    if held is not None and not held.ours and not replace:
        raise foreign(nic, held)
    if held is not None and wish in ("auto", held.mode):
        with _expected(held) as expected:
            return _try(nic, prog_fd, held.mode, "", expected)
    if held is not None:
        return _change_mode(nic, held, prog_fd, wish)
    if wish != "auto":
        return _try(nic, prog_fd, wish, "")
    try:
        set_xdp(nic.ifindex, prog_fd, NATIVE | IF_NONE)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.EBUSY, errno.EEXIST, errno.ENODEV):
            raise _failed(error, f"attaching to {name}") from error
        return _try(nic, prog_fd, "generic", f"generic mode: {name} refused native XDP ({_reason(error)})")
    return Attached(nic.name, nic.ifindex, "native", _id(prog_fd), "")


def _id(prog_fd: int) -> int:
    return bpf.prog_info(prog_fd).id


def _try(nic: Nic, prog_fd: int, mode: Mode, note: str, expected: int | None = None) -> Attached:
    how = IF_NONE if expected is None else REPLACE
    try:
        set_xdp(nic.ifindex, prog_fd, FLAGS[mode] | how, expected)
    except OSError as error:
        raise _failed(error, f"attaching to {nic.name} in {mode} mode") from error
    return Attached(nic.name, nic.ifindex, mode, _id(prog_fd), note)


def _change_mode(nic: Nic, held: Program, prog_fd: int, wish: Wish) -> Attached:
    """The kernel lets no two modes be active at once: off, then on; back to the old if that fails."""
    mode: Mode = "native" if wish == "native" else "generic"
    _remove(nic, held)
    try:
        return _try(nic, prog_fd, mode, f"{held.mode} mode ended: the NIC was open for a moment")
    except (DataplaneError, PermissionRefused, Foreign) as failure:
        _put_back(nic, held, failure)
        raise


def _put_back(nic: Nic, held: Program, failure: ValkyrieError) -> None:
    """Raises DataplaneError saying that the NIC is open, if the old program cannot be attached again."""
    try:
        with _expected(held) as old:
            set_xdp(nic.ifindex, old, FLAGS[held.mode] | IF_NONE)
    except (OSError, ValkyrieError) as error:
        reason = _reason(error) if isinstance(error, OSError) else error
        raise DataplaneError(
            f"{nic.name} is OPEN, with no program: {failure.what}; and the one in {held.mode} mode could not "
            f"be put back: {reason}",
            f"valkyrie-ctl attach {nic.name} --mode {held.mode}",
        ) from failure


def _remove(nic: Nic, held: Program) -> None:
    with _expected(held) as expected:
        try:
            set_xdp(nic.ifindex, REMOVE, FLAGS[held.mode] | REPLACE, expected)
        except OSError as error:
            raise _failed(error, f"detaching from {nic.name}") from error


def detach(name: str, pin_dir: Path) -> bool:
    """Take our program off; False if nothing was attached. Raises Foreign for somebody else's."""
    nic = query(name, pin_dir)
    if nic.program is None:
        return False
    if not nic.program.ours:
        raise foreign(nic, nic.program)
    _remove(nic, nic.program)
    return True
