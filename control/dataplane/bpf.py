# SPDX-License-Identifier: Apache-2.0
"""The bpf(2) system call, as far as the appliance needs it, and its errors in words.

Every function that returns a file descriptor gives it to the caller, who closes it.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from valkyrie.control.errors import (
    Conflict,
    DataplaneError,
    NotFound,
    PermissionRefused,
    Unavailable,
    ValkyrieError,
)

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY = 0, 1, 2, 3, 4
PROG_LOAD, OBJ_PIN, OBJ_GET, PROG_TEST_RUN = 5, 6, 7, 10
PROG_BY_ID, MAP_BY_ID, OBJ_INFO = 13, 14, 15

PROG_TYPE_XDP = 6
MAP_TYPE_HASH, MAP_TYPE_ARRAY, MAP_TYPE_RINGBUF = 1, 2, 27
F_NO_PREALLOC, F_MMAPABLE = 1, 1 << 10
MAX_MAPS = 64
MAX_FRAME = 65536

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class MapInfo:
    """A map as the kernel describes it; sizes in bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


@dataclass(frozen=True)
class ProgInfo:
    """A program as the kernel describes it."""

    type: int
    id: int
    tag: str
    name: str
    map_ids: tuple[int, ...]


def _error(number: int, what: str) -> ValkyrieError:
    text = f"{what}: {os.strerror(number)}"
    if number in (errno.EPERM, errno.EACCES):
        return PermissionRefused(text, "run it as root (or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")
    if number == errno.ENOENT:
        return NotFound(text, "build and load the program first: start valkyried")
    if number == errno.EROFS:
        return Unavailable(text, "the BPF file system is read-only: mount -o remount,rw /sys/fs/bpf")
    if number == errno.EEXIST:
        return Conflict(text, "something else is pinned there: remove it or choose another place")
    if number == errno.ENOSYS:
        return Unavailable(text, "this kernel has no bpf(2): Linux 5.15 or newer is needed")
    if number in (errno.ENOMEM, errno.E2BIG):
        return Unavailable(text, "too little memory for the tables: choose a smaller table.buckets")
    return DataplaneError(text, "see `valkyrie-ctl doctor`")


def _fail(what: str) -> NoReturn:
    raise _error(ctypes.get_errno(), what)


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """The bare call: its result, -1 with errno set on failure."""
    number = SYSCALL.get(platform.machine())
    if number is None:
        raise Unavailable(f"no BPF on machine type {platform.machine()}", "use x86_64 or aarch64")
    return int(_libc.syscall(number, command, attributes, len(attributes)))


def _attributes(layout: str, *values: object) -> ctypes.Array[ctypes.c_char]:
    packed = struct.pack("=" + layout, *values)
    return ctypes.create_string_buffer(packed.ljust(128, b"\0"), 128)


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def obj_get(path: Path | str) -> int:
    """Open a pinned map or program. Raises NotFound, PermissionRefused, DataplaneError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    fd = _bpf(OBJ_GET, _attributes("QII", _address(name), 0, 0))
    if fd < 0:
        _fail(f"opening the pin {path}")
    return fd


def obj_pin(fd: int, path: Path | str) -> None:
    """Pin a map or program. Raises Conflict if the path exists."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    if _bpf(OBJ_PIN, _attributes("QII", _address(name), fd, 0)) < 0:
        _fail(f"pinning {path}")


@contextmanager
def opened(path: Path | str) -> Iterator[int]:
    """A pinned object's descriptor, closed at the end."""
    fd = obj_get(path)
    try:
        yield fd
    finally:
        os.close(fd)


def by_id(command: int, identity: int) -> int:
    """Open a program (PROG_BY_ID) or map (MAP_BY_ID) by its kernel id."""
    fd = _bpf(command, _attributes("III", identity, 0, 0))
    if fd < 0:
        _fail(f"opening {'program' if command == PROG_BY_ID else 'map'} {identity}")
    return fd


def _info(fd: int, buffer: ctypes.Array[ctypes.c_char], what: str) -> bytes:
    if _bpf(OBJ_INFO, _attributes("IIQ", fd, len(buffer), _address(buffer))) < 0:
        _fail(f"asking for {what}")
    return buffer.raw


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


def map_info(fd: int) -> MapInfo:
    """Type, id, sizes and name of a map."""
    raw = _info(fd, ctypes.create_string_buffer(88), "a map's description")
    *numbers, name = struct.unpack_from("=6I16s", raw)
    kind, identity, key_size, value_size, entries, flags = numbers
    return MapInfo(kind, identity, key_size, value_size, entries, flags, _name(name))


def prog_info(fd: int) -> ProgInfo:
    """Type, id, tag, name and map ids of a program; at most MAX_MAPS ids."""
    ids = ctypes.create_string_buffer(4 * MAX_MAPS)
    ask = ctypes.create_string_buffer(
        struct.pack("=48xIIQ", 0, MAX_MAPS, _address(ids)).ljust(128, b"\0"), 128
    )
    raw = _info(fd, ask, "a program's description")
    kind, identity, tag = struct.unpack_from("=II8s", raw)
    (count,) = struct.unpack_from("=I", raw, 52)
    (name,) = struct.unpack_from("=16s", raw, 64)
    maps = struct.unpack_from(f"={min(count, MAX_MAPS)}I", ids.raw)
    return ProgInfo(kind, identity, tag.hex(), _name(name), maps)


def map_create(
    kind: int, key_size: int, value_size: int, *, entries: int, flags: int = 0, name: str = ""
) -> int:
    """Make a map that lives as long as its descriptor or pin."""
    attributes = _attributes("7I16s", kind, key_size, value_size, entries, flags, 0, 0, name.encode()[:15])
    fd = _bpf(MAP_CREATE, attributes)
    if fd < 0:
        _fail(f"making the map {name or kind}")
    return fd


def _element(command: int, fd: int, key: bytes | None, value: ctypes.Array[ctypes.c_char] | None) -> bool:
    """One element call; False for "no such key"."""
    held = ctypes.create_string_buffer(key, len(key)) if key is not None else None
    attributes = _attributes(
        "IxxxxQQQ",
        fd,
        _address(held) if held is not None else 0,
        _address(value) if value is not None else 0,
        0,
    )
    if _bpf(command, attributes) >= 0:
        return True
    if ctypes.get_errno() == errno.ENOENT:
        return False
    _fail("using a map")


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value of a key, None if there is none."""
    value = ctypes.create_string_buffer(value_size)
    return value.raw if _element(MAP_LOOKUP, fd, key, value) else None


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set the value of a key."""
    if not _element(MAP_UPDATE, fd, key, ctypes.create_string_buffer(value, len(value))):
        raise DataplaneError("a map refused an entry", "see `valkyrie-ctl doctor`")


def map_delete(fd: int, key: bytes) -> bool:
    """Remove a key; False if it was not there."""
    return _element(MAP_DELETE, fd, key, None)


def map_keys(fd: int, key_size: int, bound: int, after: bytes | None = None) -> list[bytes]:
    """The keys of a map, at most `bound`; those that come after one, or all again if it is gone."""
    keys: list[bytes] = []
    following = ctypes.create_string_buffer(key_size)
    key = after
    while len(keys) < bound and _element(MAP_NEXT_KEY, fd, key, following):
        key = following.raw
        keys.append(key)
    return keys


def load_xdp(instructions: bytes, name: str = "probe") -> int:
    """Load a raw XDP program (8 bytes an instruction), without BCC."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_name = ctypes.create_string_buffer(b"GPL")
    attributes = _attributes(
        "IIQQIIQII16s", PROG_TYPE_XDP, len(instructions) // 8, _address(code), _address(license_name),
        0, 0, 0, 0, 0, name.encode()[:15],
    )  # fmt: skip
    fd = _bpf(PROG_LOAD, attributes)
    if fd < 0:
        _fail(f"loading the program {name}")
    return fd


def test_run(
    prog_fd: int,
    data: bytes,
    *,
    ctx: bytes = b"",  # noqa: PT028 - no test
    ifindex: int = 0,  # noqa: PT028
    repeat: int = 1,  # noqa: PT028
) -> tuple[int, bytes, int]:
    """Run an XDP program on one packet: (return value, metadata and packet afterwards, ns a run).

    `data` is the frame, at least 14 bytes; `ctx` is packet metadata laid before it, a multiple
    of 4 bytes up to 32. An ifindex of the current network namespace sets the ingress device.
    """
    frame = ctypes.create_string_buffer(ctx + data, len(ctx) + len(data))
    out = ctypes.create_string_buffer(MAX_FRAME)
    packed = struct.pack("=6I", len(ctx), len(frame), 0, ifindex, 0, 0)
    context = ctypes.create_string_buffer(packed, len(packed))
    with_context = bool(ctx) or bool(ifindex)
    attributes = _attributes(
        "IIIIQQIIIIQQ", prog_fd, 0, len(frame), len(out), _address(frame), _address(out), repeat, 0,
        len(packed) if with_context else 0, 0, _address(context) if with_context else 0, 0,
    )  # fmt: skip
    if _bpf(PROG_TEST_RUN, attributes) < 0:
        _fail(f"test-running the program on a packet of {len(data)} bytes")
    _, retval, _, size = struct.unpack_from("=4I", attributes.raw)
    (duration,) = struct.unpack_from("=I", attributes.raw, 36)
    return retval, out.raw[:size], duration


def membarrier() -> bool:
    """Wait until every packet that was being handled is done (an RCU grace period).

    False if the kernel does not offer it.
    """
    number = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}.get(
        platform.machine()
    )
    return number is not None and int(_libc.syscall(number, 1, 0, 0)) == 0
